"""What may end a request before its answer does."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Literal

from starlette.types import Receive

from server.errors import DeadlineError, RequestError
from server.http import shutting_down
from server.reply.sender import Sender

Why = Literal["gone", "stuck", "late"]

_CHECKS = 2
"""Of a reader, in the time that it may take."""


class Watch:
    """Cancels the task that enters this context when its client has gone (`why` "gone"), or takes
    nothing of what is sent ("stuck"), or its time is over ("late").

    `deadline` is the loop's time, by which the last piece must be on its way. A reader is stuck
    after `reader_seconds` to half as much more. `comment_seconds` without anything to send is
    followed by a comment.
    """

    def __init__(
        self,
        receive: Receive,
        sender: Sender,
        *,
        deadline: float | None,
        reader_seconds: float,
        comment_seconds: float | None,
    ) -> None:
        self._receive, self._sender = receive, sender
        self._deadline, self._reader_seconds = deadline, reader_seconds
        self._comment_seconds = comment_seconds
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.why: Why | None = None

    def __enter__(self) -> Watch:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._watcher = self._loop.create_task(self._wait_for_disconnect())
        if self._deadline is not None:
            self._timers["deadline"] = self._loop.call_at(self._deadline, self._be_late)
        self._check_reader(-1, 0)
        if self._comment_seconds is not None:
            self._check_silence(self._comment_seconds, -1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watcher.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._sender.close()

    def error(self) -> RequestError | None:
        """What a task that was cancelled tells its client; None where nobody listens."""
        if self.why == "late":
            return DeadlineError("the request's time was over before its answer", do="ask for less")
        return None if self.why else shutting_down()

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._sender.ended:  # after the end, servers say so of every client
            self._cancel("gone")

    def _be_late(self) -> None:
        if not self._sender.ended:  # a whole answer a little late is better than a part of it
            self._cancel("late")

    def _check_reader(self, seen: int, times: int) -> None:
        """`seen` is the progress when a piece was being sent, `times` how often in a row."""
        sender = self._sender
        times = times + 1 if sender.waiting and sender.progress == seen else 0
        if times == _CHECKS:
            self._cancel("stuck")
            return
        seen = sender.progress if sender.waiting else -1
        self._timers["reader"] = self._loop.call_later(
            self._reader_seconds / _CHECKS, self._check_reader, seen, times
        )

    def _check_silence(self, seconds: float, seen: int) -> None:
        if self._sender.progress == seen:
            self._sender.comment()
        self._timers["comment"] = self._loop.call_later(
            seconds, self._check_silence, seconds, self._sender.progress
        )

    def _cancel(self, why: Why) -> None:
        self.why = why
        if self._task:
            self._task.cancel()
