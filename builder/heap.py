"""Spares threads that compute block after block the cost of fresh memory for each.

glibc's malloc gives large blocks back to the kernel as soon as they are freed, and the kernel
zeroes every page again for the next: half the time of quantizing a model.
"""

from __future__ import annotations

import ctypes
from functools import cache

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 26
_LARGEST_BYTES = 1 << 25


@cache
def keep_freed_blocks() -> None:
    """Let malloc keep up to 64 MB that is free; where there is no such malloc, do nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
