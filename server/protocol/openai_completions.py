"""OpenAI's (legacy) completions: bytes to a TextRequest, events to bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from server.protocol.openai_shared import (
    SharedParameters,
    head_json,
    include_usage,
    json_log_prob,
    limits,
    sampling,
    usage_json,
)
from server.protocol.parameters import COMPLETIONS
from server.protocol.request import (
    AnswerHead,
    Prompt,
    TextEvent,
    TextPrompt,
    TextRequest,
    TokenLogProb,
    TokenPrompt,
    Usage,
)
from server.protocol.sse import Frame, encode, event
from server.protocol.validation import check_range, decode, require

ID_PREFIX = "cmpl-"
DEFAULT_MAX_TOKENS = 16


class CompletionRequest(SharedParameters, kw_only=True):
    """The honoured parameters of a completion request."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None


_decoder = msgspec.json.Decoder(CompletionRequest)


def parse(body: bytes) -> TextRequest:
    """The request in `body`. Raises InvalidRequestError."""
    request = decode(body, _decoder, COMPLETIONS)
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    only_chosen = "can't be honoured above 0: only the chosen token's log probability is known"
    check_range("logprobs", request.logprobs, 0)
    require(not request.logprobs, f"'logprobs' {only_chosen}", param="logprobs")
    return TextRequest(
        model=request.model,
        prompts=_prompts(request),
        prompt_param="prompt",
        sampling=sampling(request),
        limits=limits(request, max_tokens=max_tokens, max_name="max_tokens"),
        log_probs=request.logprobs is not None,
        skip_special_tokens=request.skip_special_tokens is not False,
        stream=bool(request.stream),
        include_usage=include_usage(request),
    )


def _prompts(request: CompletionRequest) -> list[Prompt]:
    add_special_tokens = request.add_special_tokens is not False
    prompt = request.prompt
    entries: list[Any] = [prompt] if isinstance(prompt, str) else list(prompt)
    require(bool(entries), "[] is too short - 'prompt'", param="prompt")
    kinds = {type(entry) for entry in entries}
    require(len(kinds) == 1, "strings, ids and lists can't be mixed - 'prompt'", param="prompt")
    if kinds == {str}:
        return [TextPrompt(text=text, add_special_tokens=add_special_tokens) for text in entries]
    return [TokenPrompt(ids=ids) for ids in ([entries] if kinds == {int} else entries)]


class CompletionStream:
    """The chunks of one streamed answer."""

    def __init__(self, head: AnswerHead, request: TextRequest) -> None:
        self._head = head_json(head, "text_completion")
        self._tail: dict[str, Any] = {"usage": None} if request.include_usage else {}
        self._texts: dict[int, Frame] = {}
        self._offsets: dict[int, int] = {}

    def start(self, index: int) -> bytes:
        """Nothing: a completion has no role to name."""
        self._texts[index] = Frame(self._choice(index, Frame.hole))
        self._offsets[index] = 0
        return b""

    def delta(self, new: TextEvent) -> bytes:
        """New text; also the chunk with the finish reason, when it is the choice's last."""
        chunk = b""
        if new.log_probs:
            log_probs = _log_probs_json(new.log_probs, self._offsets[new.index])
            self._offsets[new.index] += sum(len(token.text) for token in new.log_probs)
            chunk = event(self._choice(new.index, new.text, log_probs=log_probs))
        elif new.text:
            chunk = self._texts[new.index].fill(new.text)
        if new.finish_reason is None:
            return chunk
        return chunk + event(self._choice(new.index, "", finish_reason=new.finish_reason))

    def usage(self, usage: Usage) -> bytes:
        """The chunk after the last choice, for clients that asked for it."""
        return event({**self._head, "choices": [], "usage": usage_json(usage)})

    def _choice(
        self,
        index: int,
        text: str,
        *,
        log_probs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "text": text,
            "logprobs": log_probs,
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
            "text": choice.text,
            "logprobs": _log_probs_json(choice.log_probs, 0) if request.log_probs else None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stopped_by,
        }
        for choice in choices
    ]
    whole = {"choices": rendered, "usage": usage_json(usage)}
    return encode({**head_json(head, "text_completion"), **whole})


def _log_probs_json(log_probs: Sequence[TokenLogProb], offset: int) -> dict[str, Any]:
    offsets = []
    for token in log_probs:
        offsets.append(offset)
        offset += len(token.text)
    values = [json_log_prob(token.log_prob) for token in log_probs]
    texts = [token.text for token in log_probs]
    return {
        "tokens": texts,
        "token_logprobs": values,
        "top_logprobs": [{text: value} for text, value in zip(texts, values, strict=True)],
        "text_offset": offsets,
    }
