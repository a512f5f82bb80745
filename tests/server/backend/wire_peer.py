"""A connection of the own HTTP/2 client without a network: bytes in by hand, bytes out kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import hpack

from server.backend.http2 import frames
from server.backend.http2.call import Call
from server.backend.http2.connection import Connection
from server.backend.http2.header_blocks import encoded
from server.backend.http2.limits import Limits

SETTINGS = frames.settings({})
HEAD = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = bytearray(), False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Peer:
    """A server's side, frame by frame; `connection` is the client's. Needs a running loop."""

    def __init__(self, *, greet: bool = True, **limits: Any) -> None:
        self.transport = Transport()
        self.connection = Connection(Limits(**limits), lambda: None)
        self.connection.connection_made(self.transport)
        self._encoder = hpack.Encoder()
        if greet:
            self.send(SETTINGS)
        self.transport.written.clear()

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    def open(self, request: bytes = b"request") -> Call:
        return self.connection.open(encoded([(":method", "POST")]), request)

    def block(self, headers: Iterable[tuple[str, str]]) -> bytes:
        return self._encoder.encode(headers)

    def headers(self, stream: int, *headers: tuple[str, str], last: bool = False) -> bytes:
        flags = frames.END_HEADERS | (frames.END_STREAM if last else 0)
        return frames.frame(frames.HEADERS, flags, stream, self.block(headers))

    def answer(self, stream: int, *messages: bytes) -> bytes:
        """A whole answer."""
        return b"".join(
            (
                self.headers(stream, *HEAD),
                *(frames.frame(frames.DATA, 0, stream, message(each)) for each in messages),
                self.headers(stream, *OK, last=True),
            )
        )

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        """The frames that the client has written: type, flags, stream, payload."""
        data, found = bytes(self.transport.written), []
        self.transport.written.clear()
        while data:
            high, low, kind, flags, stream = frames.HEAD.unpack_from(data)
            size = high << 8 | low
            found.append((kind, flags, stream, data[9 : 9 + size]))
            data = data[9 + size :]
        return found


def message(content: bytes) -> bytes:
    """A gRPC message with its prefix."""
    return b"\0" + len(content).to_bytes(4, "big") + content
