"""A file that is read at any place by any thread.

Two ways, because neither does for all: a map gives arrays without a copy, but a file that is cut
or a disk that fails while it is read kills the process; reading gives an error instead, and no
pages that count as the process's own.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from builder.digest import COPY_BYTES
from builder.dtypes import Array
from builder.errors import CorruptFileError

_AHEAD_BYTES = 1 << 24
"""How much the kernel is asked for before its turn, so that a disk works while bytes are copied."""


class StoredFile:
    """An open file; it is closed when nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises OSError as the file system does, and ValueError for an empty file."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def read(self, begin: int, size_bytes: int) -> Array:
        """Bytes in memory of their own. Raises CorruptFileError when the file got shorter."""
        content = np.empty(size_bytes, np.uint8)
        self._read_into(content.data, begin)
        return content

    def chunks(self, begin: int, size_bytes: int) -> Iterator[memoryview]:
        """Bytes one chunk after the other; each is good until the next is asked for.

        Raises CorruptFileError when the file got shorter.
        """
        buffer = memoryview(bytearray(min(COPY_BYTES, size_bytes)))
        end = begin + size_bytes
        asked = begin
        while begin < end:
            if asked < min(begin + _AHEAD_BYTES // 2, end):
                asked = max(asked, begin)
                os.posix_fadvise(self._descriptor, asked, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
                asked += _AHEAD_BYTES
            chunk = buffer[: end - begin]
            self._read_into(chunk, begin)
            yield chunk
            begin += len(chunk)

    def _read_into(self, buffer: memoryview, begin: int) -> None:
        while buffer:
            count = os.preadv(self._descriptor, [buffer], begin)
            if not count:
                raise CorruptFileError(
                    f"{self.path} was cut while it was read",
                    found=f"an end at {begin} bytes",
                    do="start again when nothing writes to it any more",
                )
            buffer, begin = buffer[count:], begin + count
