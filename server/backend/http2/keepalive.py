"""Whether a silent peer still lives: a PING now and then, as seldom as gRPC servers demand."""

from __future__ import annotations

import asyncio
from typing import Final

from server.backend.http2 import frames
from server.backend.http2.limits import Watched

_FREELY: Final = 2
_SELDOM_SECONDS: Final = 310.0
"""A gRPC server leaves at the third PING after which it had nothing to send within 5 minutes."""


class Keepalive:
    """Watches one connection while it has calls; `quiet` is cleared with all that comes."""

    def __init__(self, connection: Watched) -> None:
        self.quiet = False
        self._connection = connection
        self._loop = connection.loop
        self._pings = self._received_bytes = 0
        self._last_ping = 0.0
        self._asked = False
        self._timer = self._after(connection.limits.keepalive_seconds)

    def stop(self) -> None:
        """The connection has ended."""
        self._timer.cancel()

    def ask(self) -> None:
        """Ask for a sign now: something else has gone unanswered."""
        if not self._asked and self._may_ping():
            self._timer.cancel()
            self._ping()

    def _ping(self) -> None:
        self.quiet = self._asked = True
        self._pings += 1
        self._last_ping = self._loop.time()
        self._connection.write(frames.frame(frames.PING, 0, 0, b"trtbuild"))
        self._timer = self._after(self._connection.limits.sign_seconds)

    def _after(self, seconds: float) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        limits = self._connection.limits
        if self._asked and self.quiet:
            self._connection.lose(f"the peer gave no sign for {limits.sign_seconds:g} s")
            return
        if self.quiet and self._connection.calls and self._may_ping():
            self._ping()
        else:
            self.quiet, self._asked = True, False
            self._timer = self._after(limits.keepalive_seconds)

    def _may_ping(self) -> bool:
        if self._received_bytes != self._connection.received_bytes:
            self._received_bytes = self._connection.received_bytes
            self._pings = 0
        return self._pings < _FREELY or self._loop.time() - self._last_ping > _SELDOM_SECONDS
