"""How many requests the endpoint has, where all its workers see it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from server.config import MAX_WORKERS

_COUNTS = struct.Struct(f"<{MAX_WORKERS}i")
_COUNT = struct.Struct("<i")


class Load:
    """A count for each worker, which only that worker writes; a new one begins with nothing.

    Without `path` there is one worker.
    """

    def __init__(self, path: Path | None = None, worker: int = 0) -> None:
        self._file = path.open("a+b") if path else None
        if self._file:
            self._file.truncate(_COUNTS.size)
        self._memory = mmap.mmap(self._file.fileno() if self._file else -1, _COUNTS.size)
        self._place = worker * _COUNT.size
        self._own = 0
        self.add(0)

    def add(self, count: int) -> None:
        """So many more requests, or fewer, in this worker."""
        self._own += count
        _COUNT.pack_into(self._memory, self._place, self._own)

    @property
    def total(self) -> int:
        """Requests in all workers, running or in line."""
        return sum(_COUNTS.unpack_from(self._memory))

    def close(self) -> None:
        """Let the memory go."""
        self._memory.close()
        if self._file:
            self._file.close()
