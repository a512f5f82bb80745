"""One gRPC call: a stream of a connection, whole messages out of frames, and its end."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final, Protocol

from server.backend.http2 import frames
from server.backend.http2.limits import Limits
from server.backend.http2.status import CallError, Status, of_head, of_reset, of_trailers

_PREFIX: Final = struct.Struct(">BL")
"""Before each message: whether it is compressed, and its size."""
_PREFIX_BYTES: Final = _PREFIX.size
_WINDOW_BYTES: Final = frames.DEFAULT_WINDOW_BYTES
"""What the peer may send that isn't read: a reader that stops holds no more than this, or one
message where that is larger."""
_LOW_BYTES: Final = _WINDOW_BYTES // 2
NOTHING: Final = memoryview(b"")


Listener = Callable[[], bool]


class Carrier(Protocol):
    """The connection, to its calls."""

    limits: Limits
    loop: asyncio.AbstractEventLoop
    heard: list[Call]
    """Calls to tell of messages, once all that has come is read."""

    def write(self, data: bytes) -> None:
        """Send frames."""
        ...

    def reset(self, call: Call, code: int) -> None:
        """Tell the peer that a call is over."""
        ...

    def forget(self, call: Call) -> None:
        """A call has ended."""
        ...


class Call:
    """A call under way, of one `message`. `messages` are those that came and weren't taken.

    `outgoing` is what the peer's windows had no room for yet. `fresh` is set with all that comes;
    who watches for silence clears it.
    """

    __slots__ = (
        "_connection",
        "_drops",
        "_head_seen",
        "_listener",
        "_part",
        "_waiter",
        "ended",
        "error",
        "fresh",
        "id",
        "messages",
        "outgoing",
        "receive_window",
        "send_window",
    )

    def __init__(self, connection: Carrier, number: int, send_window: int, message: bytes) -> None:
        self.id = number
        self.messages: list[bytes] = []
        self.ended = False
        self.error: CallError | None = None
        self.fresh = True
        self.outgoing = memoryview(_PREFIX.pack(0, len(message)) + message)
        self.send_window = send_window
        self.receive_window = _WINDOW_BYTES
        self._connection = connection
        self._part = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._listener: Listener | None = None
        self._head_seen = self._drops = False

    # -- for the caller

    def take(self) -> list[bytes]:
        """The messages that have come; they count as read."""
        messages = self.messages
        if messages:
            self.messages = []
        if self.receive_window < _LOW_BYTES:
            self._widen()
        return messages

    def wait(self, listener: Listener | None = None) -> asyncio.Future[None]:
        """Done when something has come, or the call has ended. For one waiter at a time.

        A `listener` is called first for messages that come: while it says yes, the wait goes on.
        What it raises, the waiter gets.
        """
        waiter = self._waiter = self._connection.loop.create_future()
        self._listener = listener
        if self.messages or self.ended:
            self._wake()
        return waiter

    def cancel(self) -> None:
        """End the call, if it hasn't ended: the peer gives up its work."""
        if not self.ended:
            self._connection.reset(self, frames.CANCEL)
            self.end(CallError(Status.CANCELLED, "cancelled by us"))

    def ignore(self) -> None:
        """What comes from now on is dropped; the call goes on to its own end."""
        self._drops = True
        self.messages.clear()
        self._part.clear()
        self._wake()
        if self.receive_window < _LOW_BYTES and not self.ended:
            self._widen()

    # -- for the connection

    def receive(self, data: bytes, start: int, stop: int) -> None:
        """`data[start:stop]` of the stream's bytes."""
        size = stop - start
        window = self.receive_window = self.receive_window - size
        if window < 0:
            raise frames.ProtocolError(
                frames.FLOW_CONTROL_ERROR, "more bytes than the stream's window"
            )
        self.fresh = True
        if self._drops:
            if window < _LOW_BYTES:
                self._widen()
            return
        first = not self.messages
        size -= _PREFIX_BYTES
        if size >= 0 and not self._part and _PREFIX.unpack_from(data, start) == (0, size):
            self.messages.append(data[start + _PREFIX_BYTES : stop])
        else:
            self._part += data[start:stop]
            self._cut()
        if first and self.messages:
            self._connection.heard.append(self)

    def tell(self) -> None:
        """Let who waits know of the messages that have come."""
        waiter = self._waiter
        if waiter is None or waiter.done() or not self.messages:
            return
        self._waiter = None  # whatever the listener does to the call, the waiter is ours
        try:
            goes_on = self._listener is not None and self._listener()
        except Exception as error:  # noqa: BLE001 - the waiter's, not the connection's
            if not waiter.done():
                waiter.set_exception(error)
            return
        self._waiter = waiter
        if not goes_on or self.ended:
            self._wake()

    def headers(self, found: dict[str, str], *, last: bool) -> None:
        """The stream's first headers, or its trailers."""
        self.fresh = True
        if not self._head_seen:
            if not last and found.get(":status", "").startswith("1"):
                return
            self._head_seen = True
            error = of_head(found)
            if error is not None and "grpc-status" not in found:
                self._fail(error)
                return
        elif not last:
            self._fail(CallError(Status.INTERNAL, "headers in the middle of a stream"))
            return
        if last:
            self.finish(of_trailers(found))

    def reset(self, code: int) -> None:
        """The peer reset the stream."""
        self.end(of_reset(code))

    def finish(self, error: CallError | None) -> None:
        """The peer's side is closed; so is ours, with nobody left to read it."""
        if self._part and error is None:
            error = CallError(Status.INTERNAL, "the stream ended in the middle of a message")
        if self.outgoing:
            self._connection.reset(self, frames.NO_ERROR)
        self.end(error)

    def end(self, error: CallError | None) -> None:
        """Nothing comes any more."""
        if self.ended:
            return
        self.ended, self.error = True, error
        self.outgoing = NOTHING
        self._part.clear()
        self._connection.forget(self)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: CallError) -> None:
        self._connection.reset(self, frames.CANCEL)
        self.end(error)

    def _cut(self) -> None:
        """Whole messages out of what has come; room for the rest of one that is larger."""
        part, at = self._part, 0
        while len(part) - at >= _PREFIX_BYTES:
            size = int.from_bytes(part[at + 1 : at + _PREFIX_BYTES], "big")
            error = self._refused(part[at], size)
            if error is not None:
                self._fail(error)
                return
            end = at + _PREFIX_BYTES + size
            if len(part) < end:
                break
            with memoryview(part) as view:
                self.messages.append(bytes(view[at + _PREFIX_BYTES : end]))
            at = end
        del part[:at]
        if not self.messages:
            self._widen_for_part()

    def _refused(self, compressed: int, size: int) -> CallError | None:
        most = self._connection.limits.message_bytes
        if compressed:
            return CallError(Status.INTERNAL, "a compressed message, which we never asked for")
        if size > most:
            found = f"a message of {size} bytes, more than the {most} that are taken"
            return CallError(Status.INTERNAL, found)
        return None

    def _widen(self) -> None:
        """Allow as much more as has been read."""
        room = _WINDOW_BYTES - self.receive_window - len(self._part)
        if room > 0 and not self.messages:
            self._grant(room)
        self._widen_for_part()

    def _widen_for_part(self) -> None:
        part = self._part
        if len(part) < _PREFIX_BYTES:
            return
        size = _PREFIX_BYTES + int.from_bytes(part[1:_PREFIX_BYTES], "big")
        missing = size - len(part) - self.receive_window
        if missing > 0:
            self._grant(missing)

    def _grant(self, size_bytes: int) -> None:
        if not self.ended:
            self.receive_window += size_bytes
            self._connection.write(frames.window_update(self.id, size_bytes))
