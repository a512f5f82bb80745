"""Earlier calls in messages of their own, for templates that don't take them as they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


def split_content(message: Message) -> list[Message]:
    """A message with calls as one with its content, if it has any, and one with the calls."""
    if not message.get("tool_calls"):
        return [message]
    said = {key: value for key, value in message.items() if key != "tool_calls"}
    return [*([said] if message.get("content") else []), {**message, "content": None}]


def one_by_one(messages: Sequence[Message]) -> list[Message]:
    """The conversation with a message for every call, what came of it right behind."""
    told: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            told.insert(_place(told, message.get("tool_call_id")), message)
        else:
            told += _each_call(message)
    return told


def _each_call(message: Message) -> list[Message]:
    calls = message.get("tool_calls")
    if not calls:
        return [message]
    contents = [message.get("content"), *[""] * (len(calls) - 1)]
    return [
        {**message, "content": content, "tool_calls": [call]}
        for content, call in zip(contents, calls, strict=True)
    ]


def _place(told: Sequence[Message], call_id: Any) -> int:
    """Where a call's result belongs: behind the latest call with its id, else at the end."""
    for place in range(len(told), 0, -1):
        calls = told[place - 1].get("tool_calls")
        if calls and calls[0].get("id") == call_id:
            return place
        if not calls and told[place - 1]["role"] != "tool":
            break
    return len(told)
