"""The thread that carries answers to Triton: one, since its HTTP server loses data of many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import triton_python_backend_utils as pb_utils

from triton_repo.executor.executor import Executor
from triton_repo.executor.output import FinishReason, Output
from triton_repo.runtime.outputs import Answer, UnfinishedError
from triton_repo.runtime.outputs_tensors import Part

_DRAIN_S = 0.02
"""The most that a step waits for answers to leave."""
_LOOKS = 4
_SHARE = 0.1
"""Clients looked for in a period, at least; more while this share of it lasts: a look is a round
trip to tritonserver, 0.1 ms and more."""


class Sender:
    """Sends what the executor has for open answers, and cancels those whose clients have gone.

    `period_s` is how often it looks for some of them. `over` is told of every answer that ends.
    """

    def __init__(
        self, executor: Executor, *, period_s: float, over: Callable[[Answer], None]
    ) -> None:
        self._executor = executor
        self._period_s = period_s
        self._over = over
        self._open: set[Answer] = set()
        self._ready: list[Answer] = []
        self._unseen: dict[Answer, None] = {}
        self._looked = 0.0
        lock = threading.Lock()
        self._wake, self._sent = threading.Condition(lock), threading.Condition(lock)
        self._closing = self._sending = False
        self._thread = threading.Thread(target=self._loop, name="sender", daemon=True)
        self._thread.start()

    def open(self, answers: Iterable[Answer]) -> None:
        """Answers that will come."""
        with self._wake:
            self._open.update(answers)
            self._wake.notify()

    def receive(self, answer: Answer, output: Output) -> None:
        """On the executor's thread: note the tokens, leave the sending to the sender's."""
        with self._wake:
            if not answer.closed and answer.add(output):
                self._ready.append(answer)
                self._wake.notify()

    def cancel(self, gone: Callable[[Answer], bool]) -> None:
        """Cancel the open answers that `gone` finds."""
        with self._wake:
            answers = list(self._open)
        for answer in answers:
            if gone(answer):
                self._cancel(answer)

    def close(self) -> None:
        """Send what is ready, end what never began, stop. The executor must have been closed."""
        with self._wake:
            waiting = [answer for answer in self._open if answer.handle is None]
        for answer in waiting:
            self.receive(answer, Output([], [], FinishReason.CANCELLED, final=True))
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def drain(self) -> None:
        """Wait until all that is ready has been sent, but not for long."""
        with self._wake:
            self._sent.wait_for(lambda: not (self._ready or self._sending), _DRAIN_S)

    def _loop(self) -> None:
        # Nothing of a turn is held while the next one waits: an idle server keeps no answers.
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Send what is ready; tokens that come meanwhile leave together the next time."""
        with self._wake:
            if not (self._ready or self._closing):
                self._wake.wait(self._period_s if self._open else None)
            if self._closing and not self._ready:
                return False
            ready, self._ready = self._ready, []
            self._sending = bool(ready)
            taken = [(answer, *answer.take()) for answer in ready]
            self._open.difference_update(answer for answer, _, final in taken if final)
        for answer, parts, final in taken:
            self._send(answer, parts, final)
        if taken:
            with self._wake:
                self._sending = False
                self._sent.notify_all()
        if time.monotonic() - self._looked >= self._period_s:
            self._look()
            self._looked = time.monotonic()
        return True

    def _look(self) -> None:
        """Cancel those of the next few open answers whose clients have gone.

        Not on another thread: a look that meets an answer's final response kills tritonserver.
        """
        if not self._unseen:
            with self._wake:
                self._unseen = dict.fromkeys(self._open)
        end, looks = time.monotonic() + _SHARE * self._period_s, 0
        while self._unseen and (looks < _LOOKS or time.monotonic() < end):
            answer = next(iter(self._unseen))
            del self._unseen[answer]
            looks += 1
            if answer in self._open and answer.stream.cancelled():
                self._cancel(answer)

    def _cancel(self, answer: Answer) -> None:
        if not answer.cancelled:
            answer.cancelled = True
            handle = answer.handle
            if handle is not None:
                self._executor.cancel(handle)

    def _send(self, answer: Answer, parts: list[Part], final: bool) -> None:
        if answer.closed:
            return
        try:
            answer.send(parts, final=final)
        except UnfinishedError:
            raise
        except Exception as error:  # noqa: BLE001 - a response too large mustn't stop the others
            self._give_up(answer, str(error))
            final = True
        if final:
            answer.closed = True
            answer.handle = None
            self._unseen.pop(answer, None)
            self._over(answer)

    def _give_up(self, answer: Answer, message: str) -> None:
        """End an answer whose response Triton won't take.

        Raises UnfinishedError, which ends the process: it is started again.
        """
        if answer.handle is not None:
            self._executor.cancel(answer.handle)
        with self._wake:
            self._open.discard(answer)
        try:
            answer.fail(message)
        except UnfinishedError:
            raise
        except Exception as error:  # noqa: BLE001 - there is nobody left to tell
            pb_utils.Logger.log_error(
                f"a response can't be sent: {message}; nor its error: {error}"
            )
