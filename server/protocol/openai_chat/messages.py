"""OpenAI's messages, checked, in the one form that chat templates are written for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from server.errors import InvalidRequestError, shown
from server.protocol.openai_shared.answers import without_none
from server.protocol.validation import require
from text.conversation import joined

MAX_MESSAGES = 10_000
MAX_PARTS = 10_000
"""Of all messages together; the calls in them too."""
MAX_ID_CHARS = 256
_NAME = re.compile(r"[^\s<|\\/>]{1,64}")
"""OpenAI's pattern for the names of those who speak."""


class ContentPart(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message; only `text` (and an assistant's `refusal`) parts are text.

    What is `Any` is of other parts, or, as the hints about caches, changes no answer.
    """

    type: str
    text: str | None = None
    refusal: str | None = None
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    audio_url: Any = None
    video_url: Any = None


class CalledFunction(msgspec.Struct, forbid_unknown_fields=True):
    """A call that an assistant made: `arguments` is JSON text, as the model wrote it.

    `parsed_arguments` are OpenAI's client's own reading of them.
    """

    name: str
    arguments: str = ""
    parsed_arguments: Any = None


class MessageCall(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call of an earlier answer; `index` is left from its stream."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None
    provider_specific_fields: Any = None


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message. The `Any` fields are what clients send back from earlier answers.

    The last three are their own: what OpenAI's made of the content, what LiteLLM tells beside it.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[MessageCall] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Any = None
    parsed: Any = None
    provider_specific_fields: Any = None
    thinking_blocks: Any = None


_PLAIN_ROLES = frozenset({"system", "developer", "user", "assistant"})
_ONLY_OF: dict[str, str] = {
    "tool_calls": "assistant",
    "function_call": "assistant",
    "reasoning_content": "assistant",
    "reasoning": "assistant",
    "refusal": "assistant",
    "tool_call_id": "tool",
}


def conversation(messages: Sequence[Message], param: str = "messages") -> list[dict[str, Any]]:
    """The messages for a chat template: contents are text, `function_call` and the role
    `function`, which are deprecated, are tool calls and their results.

    Raises InvalidRequestError naming the place in `param`.
    """
    require(bool(messages), f"[] is too short - '{param}'", param=param)
    most = f"more than {MAX_MESSAGES} messages - '{param}'"
    require(len(messages) <= MAX_MESSAGES, most, param=param)
    parts = sum(len(one.tool_calls or ()) + _part_count(one.content) for one in messages)
    require(parts <= MAX_PARTS, f"more than {MAX_PARTS} parts - '{param}'", param=param)
    return [_message(f"{param}[{index}]", index, one) for index, one in enumerate(messages)]


def _part_count(content: str | list[ContentPart] | None) -> int:
    return len(content) if isinstance(content, list) else 0


def _message(where: str, index: int, message: Message) -> dict[str, Any]:
    if isinstance(message.content, str) and message.role in _PLAIN_ROLES:
        _, _, *more = msgspec.structs.astuple(message)
        if not any(more):
            return {"role": message.role, "content": message.content}
    _check(where, message)
    role, content = message.role, _content(where, message)
    if role == "function":
        result = {"role": "tool", "tool_call_id": f"call_{index - 1}", "name": message.name}
        return {**result, "content": content}
    optional = {
        "name": message.name,
        "tool_calls": _calls(where, index, message),
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content or message.reasoning,
    }
    return {"role": role, "content": content, **without_none(optional)}


def _check(where: str, message: Message) -> None:
    for name in ("annotations", "audio"):
        param = f"{where}.{name}"
        require(not getattr(message, name), f"'{param}' can't be honoured", param=param)
    for name, role in _ONLY_OF.items():
        if getattr(message, name) and message.role != role:
            param = f"{where}.{name}"
            only = f"only a message of the role '{role}' has it - '{param}'"
            raise InvalidRequestError(only, param=param)
    if message.role == "tool":
        param = f"{where}.tool_call_id"
        given = 0 < len(message.tool_call_id or "") <= MAX_ID_CHARS
        require(given, f"'{param}' is required for the role 'tool'", param=param)
    if message.role == "function" or message.name is not None:
        param = f"{where}.name"
        named = _NAME.fullmatch(message.name or "") is not None
        require(named, f"1 to 64 characters, none of <|\\/> or white - '{param}'", param=param)


def _content(where: str, message: Message) -> str:
    param = f"{where}.content"
    if isinstance(message.content, str):
        return message.content
    if message.content is None:
        missing = f"'{param}' is required for the role '{message.role}'"
        require(message.role == "assistant", missing, param=param)
        return message.refusal or ""
    require(bool(message.content), f"[] is too short - '{param}'", param=param)
    parts = enumerate(message.content)
    return joined(_text(f"{param}[{index}]", message.role, part) for index, part in parts)


def _text(param: str, role: str, part: ContentPart) -> str:
    texts = {"text": part.text, "refusal": part.refusal if role == "assistant" else None}
    if (text := texts.get(part.type)) is not None:
        return text
    missing = f"'{param}.text' is required"
    other = f"a part of type '{shown(part.type)}' can't be read by this model - '{param}'"
    raise InvalidRequestError(missing if part.type == "text" else other, param=param)


def _calls(where: str, index: int, message: Message) -> list[dict[str, Any]] | None:
    calls = list(message.tool_calls or ())
    if message.function_call is not None:
        param = f"{where}.function_call"
        require(not calls, f"a message has 'tool_calls' or '{param}'", param=param)
        calls = [MessageCall(id=f"call_{index}", function=message.function_call)]
    for number, call in enumerate(calls):
        param = f"{where}.tool_calls[{number}]"
        sizes = 0 < len(call.id) <= MAX_ID_CHARS and 0 < len(call.function.name) <= MAX_ID_CHARS
        require(sizes, f"id and name have 1 to {MAX_ID_CHARS} characters - '{param}'", param=param)
    return [_call_json(call) for call in calls] or None


def _call_json(call: MessageCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id, "type": "function", "function": function}
