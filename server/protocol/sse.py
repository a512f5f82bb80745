"""Server-sent events, and the prebuilt frames that make a streamed token cheap."""

from __future__ import annotations

from typing import Any

import msgspec

from server.errors import RequestError
from server.protocol import openai_errors

DONE = b"data: [DONE]\n\n"

_HOLE = "\N{OBJECT REPLACEMENT CHARACTER}hole\N{OBJECT REPLACEMENT CHARACTER}"

encode = msgspec.json.Encoder().encode


def event(content: Any) -> bytes:
    """One data event with a JSON document."""
    return b"data: " + encode(content) + b"\n\n"


def error_event(error: RequestError) -> bytes:
    """An error after the status line has left: clients raise on it, then the stream is done."""
    return b"data: " + openai_errors.render(error) + b"\n\n" + DONE


class Frame:
    """An event whose bytes are known but for one JSON value: a token costs one escape.

    The value may stand in several places.
    """

    hole = _HOLE

    def __init__(self, content: Any) -> None:
        self._around = event(content).split(encode(_HOLE))

    def fill(self, value: Any) -> bytes:
        """The event with `value` in its holes."""
        return encode(value).join(self._around)
