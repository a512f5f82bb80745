"""Work that takes long, beside the event loop: others' streams go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_LEAST_THREADS, _MOST_THREADS = 2, 4
_SHORT_BODY_BYTES = 64 * 1024


async def offload(work: Callable[P, R], *args: P.args, **given: P.kwargs) -> R:
    """What `work` returns, done in one of a few threads: long texts wait for each other there
    rather than slow down everybody."""
    return await _run(_threads(), partial(work, *args, **given))


async def offload_alone(work: Callable[P, R], *args: P.args, **given: P.kwargs) -> R:
    """The same in the one thread for work of any length that no answer waits for."""
    return await _run(_lone_thread(), partial(work, *args, **given))


async def parsed(parse: Callable[[bytes], R], body: bytes) -> R:
    """What `parse` makes of a body, which of a long one takes long."""
    return await offload(parse, body) if is_long(body) else parse(body)


def is_long(body: bytes) -> bool:
    """Whether a request's body is too long to be read in the event loop."""
    return len(body) > _SHORT_BODY_BYTES


async def _run(threads: ThreadPoolExecutor, work: Callable[[], R]) -> R:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


@cache
def _lone_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="counts")


@cache
def _threads() -> ThreadPoolExecutor:
    threads = min(max((os.cpu_count() or 1) // 2, _LEAST_THREADS), _MOST_THREADS)
    return ThreadPoolExecutor(threads, thread_name_prefix="text")
