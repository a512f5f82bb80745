"""One whole response."""

from __future__ import annotations

from typing import Literal

from server.protocol.request import TextEvent, Usage
from server.protocol.responses.events import Events
from server.protocol.responses.output import Output
from server.protocol.responses.response import ResponseObject
from server.protocol.sse import encode


def render(response: ResponseObject, choice: TextEvent, usage: Usage) -> bytes:
    """The response's JSON; `choice` has all of the answer. Its items are those of a stream."""
    output = Output(Events(), response.id)
    for event in choice.pieces or [choice]:
        output.feed(event)
    status: Literal["completed", "incomplete"] = (
        "incomplete" if choice.finish_reason == "length" else "completed"
    )
    output.end(status)
    return encode(response.at(status, output.items(), usage=usage))
