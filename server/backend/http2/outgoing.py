"""What one connection sends of its calls: as much as the peer's windows allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from server.backend.http2 import frames
from server.backend.http2.call import NOTHING, Call
from server.backend.http2.frames import ProtocolError

_MOST_FRAME_BYTES: Final = 1 << 20


class Outgoing:
    """The peer's windows and frame size, and the calls that wait for room, first come first."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.frame_bytes = frames.DEFAULT_FRAME_BYTES
        self.first_window = frames.DEFAULT_WINDOW_BYTES
        self._window = frames.DEFAULT_WINDOW_BYTES
        self._write = write
        self._blocked: dict[Call, None] = {}

    def flush(self, call: Call, head: bytes = b"") -> None:
        """Send what a call has to send, behind its `head`; with the last of it our side closes."""
        parts = [head] if head else []
        left = call.outgoing
        while left:
            size = min(len(left), self.frame_bytes, call.send_window, self._window)
            if size <= 0:
                self._blocked[call] = None  # one that is there keeps its place
                break
            data, left = bytes(left[:size]), left[size:]
            call.send_window -= size
            self._window -= size
            flags = 0 if left else frames.END_STREAM
            parts.append(frames.frame(frames.DATA, flags, call.id, data))
        call.outgoing = left or NOTHING  # the message isn't kept
        if parts:
            self._write(b"".join(parts))

    def forget(self, call: Call) -> None:
        """A call has ended."""
        self._blocked.pop(call, None)

    def unblock(self) -> None:
        """Send what has room now."""
        for call in list(self._blocked):
            if self._window <= 0:
                break
            if call.send_window > 0:
                del self._blocked[call]
                self.flush(call)

    def widen(self, size_bytes: int) -> None:
        """The connection's window grows. Raises ProtocolError."""
        self._window += size_bytes
        if not size_bytes or self._window > frames.MOST_WINDOW_BYTES:
            raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a broken WINDOW_UPDATE")
        self.unblock()

    def set_first_window(self, size_bytes: int, calls: Iterable[Call]) -> None:
        """The peer's setting, also for calls that have begun. Raises ProtocolError."""
        if size_bytes > frames.MOST_WINDOW_BYTES:
            raise ProtocolError(frames.FLOW_CONTROL_ERROR, f"a window of {size_bytes}")
        for call in calls:
            call.send_window += size_bytes - self.first_window
        self.first_window = size_bytes

    def set_frame_bytes(self, size_bytes: int) -> None:
        """The peer's setting. Raises ProtocolError."""
        if not frames.DEFAULT_FRAME_BYTES <= size_bytes <= frames.MOST_FRAME_BYTES:
            raise ProtocolError(frames.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {size_bytes}")
        self.frame_bytes = min(size_bytes, _MOST_FRAME_BYTES)
