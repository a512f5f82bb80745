"""Kept items as JSON, a line each: they are written and read one by one, so that other threads have
their turn in between, and a long conversation stops no stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from server.protocol.responses.items import Item
from server.protocol.sse import encode

_BETWEEN: Final = b",\n"
"""JSON of ours has no line's end of its own."""


def written(items: Sequence[Item]) -> bytes:
    """A JSON list."""
    return b"[" + _BETWEEN.join([encode(item) for item in items]) + b"]"


def read(content: bytes) -> list[Item]:
    """The other way."""
    return [item for item, _ in sized(content)]


def sized(content: bytes) -> Iterator[tuple[Item, int]]:
    """The items, each with the length of its JSON."""
    view, start, end = memoryview(content), 1, len(content) - 1
    while start < end:
        found = content.find(_BETWEEN, start)
        stop = end if found < 0 else found
        yield msgspec.json.decode(view[start:stop]), stop - start
        start = stop + len(_BETWEEN)
