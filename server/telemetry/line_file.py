"""A file of lines that a thread appends to: a slow disk or a stalled reader holds up no request.

What can't be written is lost; that is said once, and counted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Full, Queue

_log = logging.getLogger(__name__)

STDERR = Path("-")
_STDERR_FD = 2
_MAX_WAITING_LINES = 10_000
_MAX_WAITING_BYTES = 64 * 1024 * 1024
_GATHER_SECONDS = 0.02
"""So that under load one write takes many lines."""
_CLOSE_SECONDS = 2.0

Line = Callable[[], bytes]


class LineFile:
    """Appends to `path`, or to standard error. Raises OSError when the file can't be opened.

    A file that was renamed or removed, as log rotation does, is opened anew. Where a line has no
    room below `max_bytes`, the file ends; of such a file, which several processes may have, a line
    is there whole or not at all. `what` names its lines in complaints.
    """

    def __init__(
        self, path: Path, *, what: str, mode: int = 0o640, max_bytes: int | None = None
    ) -> None:
        self._path = None if path == STDERR else path
        self._what, self._mode, self._max_bytes = what, mode, max_bytes
        self._fd = self._opened(self._path) if self._path else _STDERR_FD
        self._waiting: Queue[tuple[Line, int] | None] = Queue(_MAX_WAITING_LINES)
        self._put_bytes = self._taken_bytes = 0
        self._refused = self._failed = 0
        self._ended = self._complained = False
        self._writer = threading.Thread(target=self._write_all, name=what, daemon=True)
        self._writer.start()

    @property
    def lost(self) -> int:
        """How many lines."""
        return self._refused + self._failed

    def write(self, line: Line, held_bytes: int) -> None:
        """Write what `line` makes, soon and in the thread; it holds about so many bytes until then.

        Never raises, never waits.
        """
        if self._put_bytes - self._taken_bytes < _MAX_WAITING_BYTES:
            with suppress(Full):
                self._waiting.put_nowait((line, held_bytes))
                self._put_bytes += held_bytes
                return
        self._refused += 1
        self._complain("they can't be written as fast as they come")

    def close(self) -> None:
        """Write what waits, for seconds at the most. Nothing may be written afterwards."""
        while True:
            try:
                self._waiting.put_nowait(None)
                break
            except Full:
                with suppress(Empty):
                    self._waiting.get_nowait()
        self._writer.join(_CLOSE_SECONDS)

    def _write_all(self) -> None:
        more = True
        while more:
            lines, held_bytes, more = self._gathered()
            if not lines:
                continue
            written = 0
            try:
                self._reopen_if_moved()
                written = 0 if self._ended else self._append(self._made(lines))
            except OSError as error:
                self._complain(str(error))
            self._failed += len(lines) - written
            self._taken_bytes += held_bytes
            self._complained = self._complained and written < len(lines)
        if self._path:
            os.close(self._fd)

    def _gathered(self) -> tuple[list[Line], int, bool]:
        """The lines that wait, what they hold, and whether there may be more."""
        lines: list[Line] = []
        held_bytes = 0
        item = self._waiting.get()
        if item:
            time.sleep(_GATHER_SECONDS)
        with suppress(Empty):
            while item:
                lines.append(item[0])
                held_bytes += item[1]
                item = self._waiting.get_nowait()
        return lines, held_bytes, item is not None

    def _made(self, lines: Iterable[Line]) -> list[bytes]:
        made = []
        for line in lines:
            try:
                made.append(line())
            except Exception:  # noqa: BLE001 - whatever it is, the others are written
                _log.exception("a line of the %s is lost", self._what)
        return made

    def _append(self, lines: Sequence[bytes]) -> int:
        """How many of the lines were written. Raises OSError."""
        if self._max_bytes is None:
            _write(self._fd, b"".join(lines))
            return len(lines)
        with _alone(self._fd):
            end = os.fstat(self._fd).st_size
            fitting = self._fitting(lines, end, self._max_bytes)
            try:
                _write(self._fd, b"".join(fitting))
            except OSError:
                with suppress(OSError):  # what is no file has no end
                    os.ftruncate(self._fd, end)
                raise
        return len(fitting)

    def _fitting(self, lines: Sequence[bytes], end: int, most: int) -> Sequence[bytes]:
        """Those with which the file has `most` bytes, and now has `end`."""
        for at, line in enumerate(lines):
            end += len(line)
            if end > most:
                self._ended = True
                self._complain(f"{self._path} has its {most} bytes; move it away")
                return lines[:at]
        return lines

    def _reopen_if_moved(self) -> None:
        if self._path is None:
            return
        try:
            named = os.stat(self._path)
            ours = os.fstat(self._fd)
            moved = (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino)
        except FileNotFoundError:
            moved = True
        if moved:
            fresh = self._opened(self._path)
            os.close(self._fd)
            self._fd, self._ended = fresh, False

    def _opened(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, self._mode)

    def _complain(self, why: str) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("lines of the %s are lost: %s", self._what, why)


@contextmanager
def _alone(fd: int) -> Iterator[None]:
    """While no other process appends."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)


def _write(fd: int, content: bytes) -> None:
    while content:
        content = content[os.write(fd, content) :]
