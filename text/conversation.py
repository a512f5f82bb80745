"""A conversation in the form of OpenAI's `messages`, read from JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from text.errors import MessagesError

_BETWEEN_PARTS = "\n"
"""What vLLM and TensorRT-LLM write there for templates that take a message's content as text."""


def joined(texts: Iterable[str]) -> str:
    """The text of a message that came in parts."""
    return _BETWEEN_PARTS.join(texts)


def parse(document: str) -> list[dict[str, Any]]:
    """The messages of a JSON list, their parts of text joined, for a chat template.

    Raises MessagesError saying which message isn't one.
    """
    try:
        messages = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise MessagesError(f"no JSON: {error}") from error
    if not isinstance(messages, list) or not messages:
        raise MessagesError("a list of messages is wanted, with at least one")
    return [_message(index, message) for index, message in enumerate(messages)]


def _message(index: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise MessagesError(f"message {index} has no role")
    content = message.get("content")
    if isinstance(content, list):
        content = joined(_part(index, part) for part in content)
    if not isinstance(content, str) and (content is not None or not message.get("tool_calls")):
        raise MessagesError(f"message {index} has no content")
    return {**message, "content": content}


def _part(index: int, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    raise MessagesError(f"message {index} has a part that isn't text")
