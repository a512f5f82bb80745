"""The events of a streamed response: numbered, and cheap where there is one for each token."""

from __future__ import annotations

from typing import Any

from server.protocol.sse import encode


class Events:
    """Counts a stream's events from 0."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def event(self, kind: str, **fields: Any) -> bytes:
        """One event with its number."""
        content = {"type": kind, "sequence_number": self.number, **fields}
        self.number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(content))

    def response(self, kind: str, response: bytes) -> bytes:
        """One event with a response that is JSON already."""
        number = self.number
        self.number += 1
        name = kind.encode()
        head = b'event: %b\ndata: {"type":"%b","sequence_number":%d,' % (name, name, number)
        return b'%b"response":%b}\n\n' % (head, response)


class Deltas:
    """The events of one item's growth: only the number and the new text differ.

    `texts` gets all of the text, piece by piece.
    """

    __slots__ = ("_before", "_events", "texts")

    def __init__(self, events: Events, kind: str, **fields: Any) -> None:
        self.texts: list[str] = []
        self._events = events
        head = encode({"type": kind, **fields}).removesuffix(b"}")
        self._before = b'event: %b\ndata: %b,"sequence_number":' % (kind.encode(), head)

    def add(self, text: str) -> bytes:
        """The next event, with `text`."""
        events = self._events
        number = events.number
        events.number = number + 1
        self.texts.append(text)
        return b'%b%d,"delta":%b}\n\n' % (self._before, number, encode(text))
