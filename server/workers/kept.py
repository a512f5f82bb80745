"""One worker, kept up: whichever process it is just now."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from typing import Any

from server.errors import InternalError
from server.workers.worker import Order

_log = logging.getLogger(__name__)

EARLY_SECONDS = 10.0
"""A worker that dies sooner has failed to start, whatever it said."""
MAX_EARLY_DEATHS = 5
"""In a row: then the endpoint is given up."""
_FIRST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.2, 10.0
_MAIN = """\
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[1:]
from server.workers.worker import main
sys.exit(main())
"""
"""-m would find a folder `server` where the user happens to stand. Ctrl-C is for the supervisor."""


class KeptWorker:
    """One worker, whichever process it is just now.

    `worth_it` tells whether it is to be started again however often it dies, once it has been
    there: others may be well. `inherited` are files that it has open, too.
    """

    def __init__(
        self,
        order: Order,
        *,
        worth_it: Callable[[], bool] = lambda: False,
        inherited: Sequence[int] = (),
    ) -> None:
        self._order = order
        self._worth_it = worth_it
        self._inherited = inherited
        self._process: Process | None = None
        self._told: int | None = None
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self.serves = False
        """Whether it takes requests just now."""
        self.deaths = 0
        """In a row, all early."""
        self._hears = False

    async def keep(self) -> None:
        """Until told to stop. Raises InternalError when it isn't worth starting it again."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            complaint = await self._run()
            if self._stopping.is_set():
                return
            self.deaths = self.deaths + 1 if loop.time() - started < EARLY_SECONDS else 1
            number = self._order.config.worker
            if not self.ready.is_set() or (
                self.deaths >= MAX_EARLY_DEATHS and not self._worth_it()
            ):
                raise InternalError(f"worker {number} doesn't stay up", found=complaint)
            _log.error("worker %d died (%s): it is started again", number, complaint)
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(self.deaths - 1, 9), _MOST_PAUSE_SECONDS)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return

    def tell(self, number: int) -> None:
        """Have the process, now or as soon as it is there, stop by a signal."""
        self._told = number
        self._stopping.set()
        self.signal(number)

    def reload(self) -> bool:
        """Have the process read its keys again; False where it doesn't listen to signals yet, and
        has still to read them."""
        if self._hears:
            self.signal(signal.SIGHUP)
        return self._hears

    def signal(self, number: int) -> None:
        """Send the process a signal, if there is one."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run(self) -> str:
        """One process from its start to its end, and what ended it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _MAIN, *sys.path),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=self._inherited,
        )
        self._process = process
        if self._told is not None:
            self.signal(self._told)
        orders, sayings = _pipes(process)
        try:
            with contextlib.suppress(ConnectionError):
                orders.write(self._order.to_bytes())
                await orders.drain()
            complaint = await self._heard(sayings)
            end = _end(await process.wait())
            return complaint or end
        finally:
            orders.close()
            self._hears = self.serves = False

    async def _heard(self, sayings: asyncio.StreamReader) -> str:
        """What a worker complains of, when it has ended; before that, how far it has come."""
        answer: dict[str, Any] = {}
        while said := await sayings.readline():
            answer = json.loads(said)
            self._hears = True
            self.serves = answer["ready"]
            if self.serves:
                self.ready.set()
        return str(answer.get("error", ""))


def _pipes(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    """The process's standard input and output."""
    if process.stdin is None or process.stdout is None:
        raise InternalError("a worker has no pipes")
    return process.stdin, process.stdout


def _end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
