"""OpenAI's own types of its Python package, strictly: what they don't know is a failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

_response = TypeAdapter(Response)
_event: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

BEYOND = {"store", "name"}
"""Fields of OpenAI's specification that its package doesn't type: a response's `store`, and the
function's `name` where its arguments are done."""


def checked_response(content: Any) -> Response:
    """A response, every field of it known and right."""
    response = _response.validate_python(content, strict=True)
    assert not list(_unknown(response))
    return response


def checked_event(content: Any) -> Any:
    """A stream's event, the same."""
    event = _event.validate_python(content, strict=True)
    assert event.type == content["type"]
    assert not list(_unknown(event))
    return event


def stream_events(data: bytes) -> list[dict[str, Any]]:
    """A stream's events, checked: names and numbers too. No `[DONE]` is there."""
    events = []
    for number, block in enumerate(block for block in data.split(b"\n\n") if block):
        name, content = block.split(b"\n")
        event = msgspec.json.decode(content.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        assert event["sequence_number"] == number
        checked_event(event)
        events.append(event)
    return events


def _unknown(model: object) -> Iterator[str]:
    if isinstance(model, BaseModel):
        yield from set(model.__pydantic_extra__ or {}) - BEYOND
        for name in type(model).model_fields:
            yield from _unknown(getattr(model, name))
    elif isinstance(model, list):
        for one in model:
            yield from _unknown(one)
