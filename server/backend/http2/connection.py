"""One HTTP/2 connection, the client's side: frames to calls, calls to frames.

A peer that breaks the protocol ends the connection, and every call of it with a clear error. The
connection's own window is as good as endless: the bound on what isn't read is each call's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from server.backend.http2 import frames
from server.backend.http2.call import Call
from server.backend.http2.frames import ProtocolError
from server.backend.http2.header_blocks import MOST_BYTES, NO_TABLE, Block, HeaderBlocks
from server.backend.http2.keepalive import Keepalive
from server.backend.http2.limits import Limits
from server.backend.http2.outgoing import Outgoing
from server.backend.http2.status import CallError, Status

_TOP_UP_BYTES: Final = 1 << 30
_LAST_STREAM: Final = (1 << 31) - 3


class Connection(asyncio.Protocol):
    """A connection. It is `usable` from the peer's first SETTINGS until either side leaves.

    `changed` is called when it becomes usable, gets room for another call, or ends.
    `received_bytes` counts what came in DATA frames.
    """

    def __init__(self, limits: Limits, changed: Callable[[], None]) -> None:
        self.limits = limits
        self.usable = self.closed = False
        self.why = "the connection was closed"
        self.calls: dict[int, Call] = {}
        self.heard: list[Call] = []
        self.loop = asyncio.get_running_loop()
        self._changed = changed
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._next_id = 1
        self._greeted = False
        self._most_calls = frames.MOST_WINDOW_BYTES
        self.received_bytes = 0
        self._topped_up_bytes = 0
        self._outgoing = Outgoing(self.write)
        self._blocks = HeaderBlocks()
        self._keepalive: Keepalive | None = None

    # -- for the channel and its calls

    @property
    def has_room(self) -> bool:
        """Whether a call can begin."""
        return self.usable and len(self.calls) < self._most_calls

    def open(self, block: bytes, message: bytes) -> Call:
        """Begin a call with these headers (`header_blocks.encoded`), where there `has_room`."""
        call = Call(self, self._next_id, self._outgoing.first_window, message)
        self._next_id += 2
        self.calls[call.id] = call
        if self._next_id > _LAST_STREAM:
            self._leave("all stream numbers are used")
        if call.id == 1:
            block = NO_TABLE + block
        head = frames.headers(call.id, block, frame_bytes=self._outgoing.frame_bytes)
        self._outgoing.flush(call, head)
        return call

    def write(self, data: bytes) -> None:
        """Send frames."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def reset(self, call: Call, code: int) -> None:
        """Tell the peer that a call is over."""
        self.write(frames.rst_stream(call.id, code))

    def forget(self, call: Call) -> None:
        """A call has ended."""
        self.calls.pop(call.id, None)
        self._outgoing.forget(call)
        if not self.usable and not self.calls:
            self.close()
        self._changed()

    def close(self, error: CallError | None = None) -> None:
        """End the connection, and its calls with an error."""
        if self.closed:
            return
        if self._transport is not None:
            self._transport.write(frames.goaway(frames.NO_ERROR))
            self._transport.close()
        self._end(error or CallError(Status.CANCELLED, "the connection was closed by us"))

    def fail(self, code: int, what: str) -> None:
        """End the connection for a fault of the peer's."""
        if self._transport is not None and not self.closed:
            self._transport.write(frames.goaway(code, what))
            self._transport.close()
        self._end(CallError(Status.UNAVAILABLE, f"the peer broke HTTP/2: {what}"))

    def ask_for_sign(self) -> None:
        """Lose the connection if nothing comes of it within the time for a sign."""
        if self._keepalive is not None and not self.closed:
            self._keepalive.ask()

    def lose(self, what: str) -> None:
        """The peer is gone, though nobody said so."""
        if self._transport is not None:
            self._transport.abort()
        self._end(CallError(Status.UNAVAILABLE, what))

    # -- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = transport = cast(asyncio.Transport, transport)
        settings = {
            frames.ENABLE_PUSH: 0,
            frames.MAX_HEADER_LIST_SIZE: MOST_BYTES,
        }
        window = frames.MOST_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES
        transport.write(
            frames.PREFACE + frames.settings(settings) + frames.window_update(0, window)
        )
        self._keepalive = Keepalive(self)

    def data_received(self, data: bytes) -> None:
        """Frames, or parts of them."""
        if self._keepalive is not None:
            self._keepalive.quiet = False
        try:
            self._parse(self._rest + data if self._rest else data)
        except ProtocolError as error:
            self.fail(error.code, str(error))
        heard, self.heard = self.heard, []
        for call in heard:
            call.tell()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer has gone."""
        why = f"the connection was lost: {exc}" if exc else "the connection was closed by the peer"
        self._end(CallError(Status.UNAVAILABLE, why))

    # -- frames

    def _parse(self, data: bytes) -> None:
        calls, blocks, at, end = self.calls, self._blocks, 0, len(data)
        unpack, most = frames.HEAD.unpack_from, frames.DEFAULT_FRAME_BYTES
        while end - at >= 9:
            high, low, kind, flags, stream = unpack(data, at)
            size = high << 8 | low
            if size > most:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, self._too_large(data, size))
            start = at + 9
            at = start + size
            if at > end:
                at = start - 9
                break
            if not kind and not flags and not blocks.open and stream in calls:
                self.received_bytes += size
                calls[stream].receive(data, start, at)
            else:
                self._frame(kind, flags, stream & 0x7FFFFFFF, data[start:at])
                if self.closed:
                    return
        self._rest = data[at:]
        used = self.received_bytes - self._topped_up_bytes
        if used > _TOP_UP_BYTES:
            self.write(frames.window_update(0, used))
            self._topped_up_bytes = self.received_bytes

    def _too_large(self, data: bytes, size: int) -> str:
        if not self.usable and data.startswith(b"HTTP/1"):
            return "it answered in HTTP/1: this isn't a gRPC port"
        return f"a frame of {size} bytes, more than {frames.DEFAULT_FRAME_BYTES}"

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._blocks.open and kind != frames.CONTINUATION:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a header block was interrupted")
        if not self._greeted and kind != frames.SETTINGS:
            raise ProtocolError(frames.PROTOCOL_ERROR, "its first frame wasn't SETTINGS")
        handle = _HANDLERS.get(kind)
        if handle is not None:
            handle(self, flags, stream, payload)

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_stream(stream, "DATA")
        self.received_bytes += len(payload)
        call = self.calls.get(stream)
        if call is None:  # it was cancelled
            return
        content = frames.unpadded(flags & frames.PADDED, payload)
        call.receive_window -= len(payload) - len(content)
        call.receive(content, 0, len(content))
        if flags & frames.END_STREAM and not call.ended:
            call.finish(CallError(Status.INTERNAL, "the stream ended without a status"))

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_stream(stream, "HEADERS")
        self._tell(self._blocks.begin(flags, stream, payload))

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        self._tell(self._blocks.go_on(flags, stream, payload))

    def _tell(self, block: Block | None) -> None:
        """Of cancelled calls too there are headers to decode: the table of names is common."""
        if block is not None and block.stream in self.calls:
            self.calls[block.stream].headers(block.headers, last=block.last)

    def _rst_stream(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_stream(stream, "RST_STREAM")
        code = frames.number(payload, "RST_STREAM")
        if stream in self.calls:
            self.calls[stream].reset(code)

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or (flags & frames.ACK and payload):
            raise ProtocolError(frames.PROTOCOL_ERROR, "a broken SETTINGS")
        if flags & frames.ACK:
            return
        for name, value in frames.parse_settings(payload):
            self._set(name, value)
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self._greeted:
            self._greeted = self.usable = True
        self._outgoing.unblock()
        self._changed()

    def _set(self, name: int, value: int) -> None:
        if name == frames.MAX_CONCURRENT_STREAMS:
            self._most_calls = value
        elif name == frames.MAX_FRAME_SIZE:
            self._outgoing.set_frame_bytes(value)
        elif name == frames.INITIAL_WINDOW_SIZE:
            self._outgoing.set_first_window(value, self.calls.values())

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) != 8:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a broken PING")
        if not flags & frames.ACK:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _goaway(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) < 8:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a broken GOAWAY")
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        code = int.from_bytes(payload[4:8], "big")
        words = payload[8:264].decode("utf-8", "replace")
        self._leave(f"the peer is leaving: {words or f'HTTP/2 code {code}'}")
        for call in [call for number, call in self.calls.items() if number > last]:
            call.end(CallError(Status.UNAVAILABLE, self.why, untaken=True))

    def _window_update(self, flags: int, stream: int, payload: bytes) -> None:
        size = frames.number(payload, "WINDOW_UPDATE") & 0x7FFFFFFF
        if not stream:
            self._outgoing.widen(size)
            return
        self._check_stream(stream, "WINDOW_UPDATE")
        call = self.calls.get(stream)
        if call is None:
            return
        call.send_window += size
        if not size or call.send_window > frames.MOST_WINDOW_BYTES:
            self.reset(call, frames.FLOW_CONTROL_ERROR)
            call.end(CallError(Status.INTERNAL, "the peer sent a broken WINDOW_UPDATE"))
        else:
            self._outgoing.flush(call)

    def _push_promise(self, flags: int, stream: int, payload: bytes) -> None:
        raise ProtocolError(frames.PROTOCOL_ERROR, "a PUSH_PROMISE, which was refused")

    def _check_stream(self, stream: int, what: str) -> None:
        if not stream & 1 or stream >= self._next_id:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"{what} on stream {stream}, which isn't")

    # -- the end

    def _leave(self, why: str) -> None:
        """No new calls; those that run go on."""
        self.usable, self.why = False, why
        self._changed()
        if not self.calls:
            self.close(CallError(Status.UNAVAILABLE, why))

    def _end(self, error: CallError) -> None:
        if self.closed:
            return
        self.closed, self.usable, self.why = True, False, error.message
        self._rest = b""
        if self._keepalive is not None:
            self._keepalive.stop()
        for call in list(self.calls.values()):
            call.end(error)
        self._changed()


_HANDLERS: Final[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
    frames.DATA: Connection._data,
    frames.HEADERS: Connection._headers,
    frames.RST_STREAM: Connection._rst_stream,
    frames.SETTINGS: Connection._settings,
    frames.PUSH_PROMISE: Connection._push_promise,
    frames.PING: Connection._ping,
    frames.GOAWAY: Connection._goaway,
    frames.WINDOW_UPDATE: Connection._window_update,
    frames.CONTINUATION: Connection._continuation,
}
