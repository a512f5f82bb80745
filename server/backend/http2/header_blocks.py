"""Our headers encoded; the peer's, which may come in several frames, decoded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import hpack

from server.backend.http2 import frames
from server.backend.http2.frames import ProtocolError

MOST_BYTES: Final = 1 << 16
"""Of one block's headers, as we tell the peer."""
NO_TABLE: Final = b"\x20"
"""Before a connection's first block: we use no table, however small the peer wants it (RFC 7541,
4.2)."""


def encoded(headers: Iterable[tuple[str, str]]) -> bytes:
    """A block, or a part of one, that the peer's table learns nothing of: the same on every
    connection, at any time."""
    block: bytes = hpack.Encoder().encode(
        [(name, value, True) for name, value in headers], huffman=False
    )
    return block


class Block(NamedTuple):
    """A whole block; `last` when the peer's side of the stream ends with it."""

    stream: int
    headers: dict[str, str]
    last: bool


class HeaderBlocks:
    """One at a time: while a block is `open`, nothing else may come."""

    def __init__(self) -> None:
        self.open = False
        self._decoder = hpack.Decoder(MOST_BYTES)
        self._stream = self._flags = 0
        self._data = bytearray()

    def begin(self, flags: int, stream: int, payload: bytes) -> Block | None:
        """HEADERS: the block, if this is all of it. Raises ProtocolError."""
        self._stream, self._flags = stream, flags
        self._data[:] = frames.unpadded(flags, payload)
        return self._when_whole(flags)

    def go_on(self, flags: int, stream: int, payload: bytes) -> Block | None:
        """CONTINUATION. Raises ProtocolError."""
        if not self.open or stream != self._stream:
            raise ProtocolError(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._data += payload
        if len(self._data) > MOST_BYTES:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "too many headers")
        return self._when_whole(flags)

    def _when_whole(self, flags: int) -> Block | None:
        self.open = not flags & frames.END_HEADERS
        if self.open:
            return None
        try:
            decoded = self._decoder.decode(bytes(self._data), raw=True)
        except hpack.HPACKError as error:
            raise ProtocolError(frames.COMPRESSION_ERROR, f"headers: {error}") from error
        found = {_text(name): _text(value) for name, value in decoded}
        return Block(self._stream, found, bool(self._flags & frames.END_STREAM))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
