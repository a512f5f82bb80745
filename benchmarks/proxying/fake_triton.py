"""A Triton that answers at once and costs little: gRPC over HTTP/2, for any client.

    python -m proxying.fake_triton --ids FILE [--step-ms 8] [--burst 1] [--own-steps] [--stamps]

It answers ModelReady and ModelStreamInfer. Each step, every stream gets `--burst` messages of one
token each, as from an engine that batches; with `--own-steps` each stream has steps of its own,
which begin when it does; `--step-ms 0` sends as much as the client takes. `--stamps` prints, after
each answer, when its messages were sent (time.monotonic). The port is printed first.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import hpack
import uvloop

from proxying import messages
from server.backend.http2 import frames

_WINDOW_BYTES = 1 << 30
_FLOOD_BYTES = 1 << 18
"""How much is written before the transport is given time."""
_BEGIN = [(":status", "200"), ("content-type", "application/grpc")]
_END = [("grpc-status", "0")]

_HEAD_BYTES = frames.HEAD.size


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How answers come: their tokens are `ids`, over and over."""

    ids: list[bytes]
    step_s: float
    burst: int
    own_steps: bool
    stamps: bool


@dataclass(slots=True)
class Stream:
    """A call under way."""

    id: int
    window: int
    path: str = ""
    request: bytearray = field(default_factory=bytearray)
    answer: messages.Encoded | None = None
    head: bytes = b""
    tokens: Iterator[bytes] | None = None
    left: int = 0
    stamps: list[float] = field(default_factory=list)
    closed: bool = False


class Steps:
    """The engine's steps, in which all connections' streams get their tokens together."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.connections: set[Connection] = set()

    async def run(self) -> None:
        """Forever."""
        due = time.monotonic()
        while True:
            due = max(due + self.pace.step_s, time.monotonic() - self.pace.step_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for connection in self.connections:
                connection.step(list(connection.running.values()))


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._pace = steps, steps.pace
        self._streams: dict[int, Stream] = {}
        self.running: dict[int, Stream] = {}
        self._window = self._first_window = frames.DEFAULT_WINDOW_BYTES
        self._data = b""
        self._greeted = self._paused = self._flooding = False
        self._decoder, self._encoder = hpack.Decoder(), hpack.Encoder()
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.RST_STREAM: lambda flags, stream, payload: self._forget(stream),
            frames.SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
            frames.WINDOW_UPDATE: self._on_window_update,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            frames.settings({frames.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
            + frames.window_update(0, _WINDOW_BYTES)
        )
        self._steps.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._steps.connections.discard(self)
        self.running.clear()
        self._streams.clear()

    def pause_writing(self) -> None:
        """The client doesn't keep up."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does."""
        self._paused = False
        self._flood_soon()

    def data_received(self, data: bytes) -> None:
        """Frames, or parts of them."""
        data = self._data + data
        at = 0
        if not self._greeted:
            if len(data) < len(frames.PREFACE):
                self._data = data
                return
            self._greeted, at = True, len(frames.PREFACE)
        while len(data) - at >= _HEAD_BYTES:
            high, low, kind, flags, stream = frames.HEAD.unpack_from(data, at)
            start = at + _HEAD_BYTES
            stop = start + (high << 8 | low)
            if stop > len(data):
                break
            if kind in self._handlers:
                self._handlers[kind](flags, stream, data[start:stop])
            at = stop
        self._data = data[at:]

    def step(self, streams: list[Stream]) -> None:
        """The next messages of these streams, in one write."""
        parts: list[bytes] = []
        for stream in streams:
            for _ in range(self._pace.burst):
                if not self._next(stream, parts):
                    break
        if parts:
            self._transport.write(b"".join(parts))

    def _next(self, stream: Stream, parts: list[bytes]) -> bool:
        """The stream's next message to `parts`, if the windows have room for it."""
        answer = stream.answer
        if answer is None or stream.tokens is None:
            return False
        size = answer.size_bytes + 512 * (stream.left == 1)
        if min(stream.window, self._window) < size:
            return False
        token = next(stream.tokens)
        if stream.left > 1:
            parts += (stream.head, answer.before, token, answer.after)
        else:
            last = answer.last_before + token + answer.last_after
            size = len(last)
            parts.append(frames.frame(frames.DATA, 0, stream.id, last))
        stream.window -= size
        self._window -= size
        stream.left -= 1
        if self._pace.stamps:
            stream.stamps.append(time.monotonic())
        if stream.left:
            return True
        parts.append(self._trailers(stream))
        return False

    def _trailers(self, stream: Stream) -> bytes:
        if stream.stamps:
            print(json.dumps(stream.stamps), flush=True)
        self._forget(stream.id)
        block = self._encoder.encode(_END)
        return frames.frame(
            frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream.id, block
        )

    def _flood_soon(self) -> None:
        if self._pace.step_s == 0 and not self._flooding and self.running:
            self._flooding = True
            asyncio.get_running_loop().call_soon(self._flood)

    def _flood(self) -> None:
        """One message of each stream in turn, until the client or its windows are full."""
        self._flooding = False
        parts: list[bytes] = []
        size, moved = 0, True
        while moved and size < _FLOOD_BYTES and not self._paused:
            before = len(parts)
            for stream in list(self.running.values()):
                self._next(stream, parts)
            moved = len(parts) > before
            size += 40 * (len(parts) - before)
        if parts:
            self._transport.write(b"".join(parts))
        if moved and not self._paused:
            self._flood_soon()

    def _own_step(self, stream: Stream, due: float) -> None:
        if stream.closed:
            return
        self.step([stream])
        if stream.left:
            due += self._pace.step_s
            asyncio.get_running_loop().call_at(due, self._own_step, stream, due)

    def _begin(self, stream: Stream) -> None:
        block = self._encoder.encode(_BEGIN)
        self._transport.write(frames.frame(frames.HEADERS, frames.END_HEADERS, stream.id, block))
        if not stream.path.endswith("/ModelStreamInfer"):
            self._transport.write(
                frames.frame(frames.DATA, 0, stream.id, messages.ready()) + self._trailers(stream)
            )
            return
        stream.answer = answer = messages.encoded(bytes(stream.request[5:]))
        stream.left = answer.max_tokens
        stream.tokens = itertools.cycle(self._pace.ids)
        stream.head = frames.frame(frames.DATA, 0, stream.id, bytes(answer.size_bytes))[
            :_HEAD_BYTES
        ]
        if self._pace.own_steps:
            self._own_step(stream, asyncio.get_running_loop().time())
        else:
            self.running[stream.id] = stream
            self._flood_soon()

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        payload = frames.unpadded(flags, payload)
        found = {str(name): str(value) for name, value in self._decoder.decode(payload)}
        new = Stream(stream, self._first_window, path=found[":path"])
        self._streams[stream] = new

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._transport.write(frames.window_update(0, len(payload)) if payload else b"")
        found = self._streams.get(stream)
        if found is None or found.answer is not None:
            return
        found.request += payload
        size = int.from_bytes(found.request[1:5], "big")
        if len(found.request) >= 5 and len(found.request) == 5 + size:
            self._begin(found)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        for name, value in frames.parse_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                for one in self._streams.values():
                    one.window += value - self._first_window
                self._first_window = value
        self._transport.write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if not flags & frames.ACK:
            self._transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(self, flags: int, stream: int, payload: bytes) -> None:
        (size,) = struct.unpack(">L", payload)
        if not stream:
            self._window += size
        elif stream in self._streams:
            self._streams[stream].window += size
        self._flood_soon()

    def _forget(self, stream: int) -> None:
        found = self._streams.pop(stream, None)
        self.running.pop(stream, None)
        if found is not None:
            found.closed = True


async def serve(pace: Pace) -> None:
    """Until killed."""
    loop, steps = asyncio.get_running_loop(), Steps(pace)
    server = await loop.create_server(lambda: Connection(steps), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    if pace.step_s and not pace.own_steps:
        await steps.run()
    await server.serve_forever()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=Path, required=True, help="a JSON list of token ids")
    parser.add_argument("--step-ms", type=float, default=8.0)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--own-steps", action="store_true")
    parser.add_argument("--stamps", action="store_true")
    arguments = parser.parse_args()
    pace = Pace(
        ids=[struct.pack("<i", token) for token in json.loads(arguments.ids.read_text())],
        step_s=arguments.step_ms / 1e3,
        burst=arguments.burst,
        own_steps=arguments.own_steps,
        stamps=arguments.stamps,
    )
    uvloop.run(serve(pace))


if __name__ == "__main__":
    main()
