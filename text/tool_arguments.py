"""The arguments of calls in a conversation, as every chat template can read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class Arguments(dict[str, Any]):
    """A call's arguments, an object to templates that look into it and JSON text to others.

    OpenAI's messages hold them as JSON text. Most templates want the object, as transformers
    gives it; some (DeepSeek's) join the text to other text.
    """

    def __init__(self, text: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __add__(self, other: str) -> str:
        return self._text + other

    def __radd__(self, other: str) -> str:
        return other + self._text


def with_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its calls' arguments as Arguments, where they are a JSON object."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_call(call) for call in calls]}


def arguments_text(given: Any) -> str:
    """A call's arguments as JSON text, as they were written where they were."""
    if isinstance(given, str):
        return given or "{}"
    return json.dumps({} if given is None else given, ensure_ascii=False)


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": _arguments(function["arguments"])}}


def _arguments(given: Any) -> Any:
    if isinstance(given, Mapping):
        return Arguments(json.dumps(given, ensure_ascii=False), given)
    if not isinstance(given, str):
        return given
    try:
        values = json.loads(given or "{}")
    except (ValueError, RecursionError):
        return given
    return Arguments(given or "{}", values) if isinstance(values, dict) else given
