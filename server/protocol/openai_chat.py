"""OpenAI's chat completions: bytes to a TextRequest, events to bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from server.errors import InvalidRequestError
from server.protocol.openai_shared import (
    SharedParameters,
    head_json,
    include_usage,
    json_log_prob,
    limits,
    sampling,
    usage_json,
    without_none,
)
from server.protocol.parameters import CHAT
from server.protocol.request import (
    AnswerHead,
    ChatPrompt,
    TextEvent,
    TextRequest,
    TokenLogProb,
    Usage,
)
from server.protocol.sse import Frame, encode, event
from server.protocol.validation import decode, require

ID_PREFIX = "chatcmpl-"


class ContentPart(msgspec.Struct):
    """A part of a message; only `text` (and an assistant's `refusal`) parts are text."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message. The `Any` fields are what clients send back from earlier answers."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None


class ChatRequest(SharedParameters, kw_only=True):
    """The honoured parameters of a chat request."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(ChatRequest)


def parse(body: bytes) -> TextRequest:
    """The request in `body`. Raises InvalidRequestError."""
    request = decode(body, _decoder, CHAT)
    completion_limit = request.max_completion_tokens
    max_name = "max_tokens" if completion_limit is None else "max_completion_tokens"
    max_tokens = request.max_tokens if completion_limit is None else completion_limit
    return TextRequest(
        model=request.model,
        prompts=[_prompt(request)],
        prompt_param="messages",
        sampling=sampling(request),
        limits=limits(request, max_tokens=max_tokens, max_name=max_name),
        log_probs=bool(request.logprobs),
        skip_special_tokens=request.skip_special_tokens is not False,
        stream=bool(request.stream),
        include_usage=include_usage(request),
    )


def _prompt(request: ChatRequest) -> ChatPrompt:
    require(bool(request.messages), "[] is too short - 'messages'", param="messages")
    messages = [_message(index, message) for index, message in enumerate(request.messages)]
    continue_final = bool(request.continue_final_message)
    add_prompt = request.add_generation_prompt
    if continue_final:
        complaint = "can't be set together with 'add_generation_prompt'"
        param = "continue_final_message"
        require(not add_prompt, f"'{param}' {complaint}", param=param)
    return ChatPrompt(
        messages=messages,
        add_generation_prompt=not continue_final if add_prompt is None else add_prompt,
        continue_final_message=continue_final,
        add_special_tokens=bool(request.add_special_tokens),
        variables=request.chat_template_kwargs or {},
    )


def _message(index: int, message: Message) -> dict[str, Any]:
    where = f"messages[{index}]"
    for name in ("refusal", "annotations", "audio", "function_call"):
        param = f"{where}.{name}"
        require(not getattr(message, name), f"'{param}' can't be honoured", param=param)
    optional = {
        "name": message.name,
        "tool_calls": message.tool_calls,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content,
    }
    content = _text(f"{where}.content", message.content)
    if message.content is None:
        missing = f"'{where}.content' is required for the role '{message.role}'"
        require(message.role == "assistant", missing, param=f"{where}.content")
    return {"role": message.role, "content": content, **without_none(optional)}


def _text(where: str, content: str | list[ContentPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, part in enumerate(content):
        text = {"text": part.text, "refusal": part.refusal}.get(part.type)
        if text is None:
            param = f"{where}[{index}]"
            what = f"a part of type '{part.type[:40]}' can't be read by this model - '{param}'"
            raise InvalidRequestError(what, param=param)
        texts.append(text)
    return "\n".join(texts)


class ChatStream:
    """The chunks of one streamed answer."""

    def __init__(self, head: AnswerHead, request: TextRequest) -> None:
        self._head = head_json(head, "chat.completion.chunk")
        self._tail: dict[str, Any] = {"usage": None} if request.include_usage else {}
        self._texts: dict[int, Frame] = {}

    def start(self, index: int) -> bytes:
        """The choice's first chunk, which names the role."""
        frame = self._choice(index, {"content": Frame.hole})
        self._texts[index] = Frame(frame)
        return event(self._choice(index, {"role": "assistant", "content": ""}))

    def delta(self, new: TextEvent) -> bytes:
        """New text; also the chunk with the finish reason, when it is the choice's last."""
        chunk = b""
        if new.log_probs:
            content = self._choice(new.index, {"content": new.text}, log_probs=new.log_probs)
            chunk = event(content)
        elif new.text:
            chunk = self._texts[new.index].fill(new.text)
        if new.finish_reason is None:
            return chunk
        return chunk + event(self._choice(new.index, {}, finish_reason=new.finish_reason))

    def usage(self, usage: Usage) -> bytes:
        """The chunk after the last choice, for clients that asked for it."""
        return event({**self._head, "choices": [], "usage": usage_json(usage)})

    def _choice(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        log_probs: Sequence[TokenLogProb] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _log_probs_json(log_probs) if log_probs else None,
            "finish_reason": finish_reason,
        }
        return {**self._head, "choices": [choice], **self._tail}


def render(
    head: AnswerHead, request: TextRequest, choices: Iterable[TextEvent], usage: Usage
) -> bytes:
    """The whole answer; each choice is one event with all its text."""
    rendered = [
        {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": _log_probs_json(choice.log_probs) if request.log_probs else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stopped_by,
        }
        for choice in choices
    ]
    whole = {"choices": rendered, "usage": usage_json(usage)}
    return encode({**head_json(head, "chat.completion"), **whole})


def _log_probs_json(log_probs: Sequence[TokenLogProb]) -> dict[str, Any]:
    content = [
        {
            "token": token.text,
            "logprob": json_log_prob(token.log_prob),
            "bytes": list(token.content),
            "top_logprobs": [],
        }
        for token in log_probs
    ]
    return {"content": content, "refusal": None}
