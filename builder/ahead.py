"""Computes on several threads what one thread takes in order, with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from builder.heap import keep_freed_blocks

Key = TypeVar("Key")
Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)
AHEAD = 32
"""How many steps may be begun before the one whose turn it is."""


def ahead(
    steps: Iterable[tuple[Key, Callable[[], Result], bool]],
) -> Generator[tuple[Key, Callable[[], Result]], None, None]:
    """The steps in their order; those marked true run early on other threads.

    Calling what is yielded gives the step's result, or raises what the step raised. Close it when
    not all are taken, so that no thread stays.
    """
    keep_freed_blocks()
    waiting: deque[tuple[Key, Callable[[], Result]]] = deque()
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="ahead")
    try:
        for key, step, early in steps:
            waiting.append((key, pool.submit(step).result if early else step))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
