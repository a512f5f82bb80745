"""A place on disk for weights that are computed for a graph: memory holds but a piece of one."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import BinaryIO

from builder.dtypes import Array, raw

ALIGNMENT_BYTES = 64


class Scratch:
    """Arrays appended to a file that nobody else sees, read back through a map.

    `file` is an empty one, open for reading and writing; it is grown to `limit_bytes` without
    taking that room. What `keep` gives lives as long as this does.
    """

    def __init__(self, file: BinaryIO, limit_bytes: int) -> None:
        self._file, self._limit = file, max(limit_bytes, 1)
        self._end = 0
        file.truncate(self._limit)
        self._map = mmap.mmap(file.fileno(), self._limit, access=mmap.ACCESS_READ)

    def keep(self, pieces: Iterable[Array]) -> memoryview:
        """The bytes of C-contiguous arrays, one after the other. Raises OSError on a full disk."""
        begin = -(-self._end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self._file.seek(begin)
        for piece in pieces:
            self._file.write(raw(piece))
        self._file.flush()
        self._end = self._file.tell()
        if self._end > self._limit:
            raise ValueError(f"{self._end} bytes where at most {self._limit} were announced")
        return memoryview(self._map)[begin : self._end]
