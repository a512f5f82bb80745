"""Who is answered now, who waits, and who is told to come back: the proxy's one queue."""

from __future__ import annotations

import asyncio
from collections import deque

from server.errors import DeadlineError, OverloadedError

_LEAST_RETRY_SECONDS, _MOST_RETRY_SECONDS = 1.0, 60.0
_NEWEST_SHARE = 0.1
"""Of the newest interval in the moving mean."""


class Admission:
    """At most `max_in_flight` requests at once, at most `max_waiting` in line, first come first.

    Belongs to one event loop.
    """

    def __init__(self, max_in_flight: int, max_waiting: int) -> None:
        self.max_in_flight, self.max_waiting = max_in_flight, max_waiting
        self.in_flight = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._left_at: float | None = None
        self._interval_seconds = 0.0
        """Between two requests that end while others wait, on the average."""

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._line)

    async def enter(self, deadline: float | None = None) -> None:
        """Take a place, after those who wait already; `leave` gives it back.

        Raises OverloadedError at once when the line is full, DeadlineError when the loop's clock
        comes to `deadline` first. Cancelled, it leaves the line.
        """
        if self.enter_now():
            return
        if len(self._line) >= self.max_waiting:
            raise OverloadedError(
                "The server is busy: its queue is full",
                do="ask again later",
                retry_after_seconds=self.retry_after_seconds,
            )
        await self._wait(deadline)

    def enter_now(self) -> bool:
        """Take a place if there is one free, and nobody in line for it."""
        if self.in_flight >= self.max_in_flight or self._line:
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """Give the place to whoever has waited longest, if anybody does."""
        while self._line and self._line[0].done():  # just cancelled, and not gone yet
            self._line.popleft()
        if not self._line:
            self.in_flight -= 1
            self._left_at = None
            return
        self._line.popleft().set_result(None)
        now = asyncio.get_running_loop().time()
        if self._left_at is not None:
            newest = now - self._left_at
            self._interval_seconds += (newest - self._interval_seconds) * _NEWEST_SHARE
        self._left_at = now

    @property
    def retry_after_seconds(self) -> float:
        """When the line should be through that is there now, at the pace of late."""
        through = self._interval_seconds * (len(self._line) + 1)
        return min(max(through, _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)

    async def _wait(self, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._line.append(turn)
        timer = loop.call_at(deadline, self._too_late, turn) if deadline is not None else None
        try:
            await turn
        except asyncio.CancelledError:
            # cancelled after its turn had come, it has a place to give on
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()
            else:
                self._forget(turn)
            raise
        finally:
            if timer:
                timer.cancel()

    def _too_late(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self._forget(turn)
            turn.set_exception(
                DeadlineError("the request's time was over while it waited for its turn")
            )

    def _forget(self, turn: asyncio.Future[None]) -> None:
        if turn in self._line:
            self._line.remove(turn)
