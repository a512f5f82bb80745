"""Waiting for what a test has set going, with a limit that only a fault reaches.

A state that passes by itself can be missed, however often one looks: let it last instead.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Return once `condition` holds. Raises AssertionError, which names it, after `seconds`."""
    __tracebackhide__ = True
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, _late(condition, seconds)
        time.sleep(0.02)


async def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    """As `until`, in an event loop, which goes on meanwhile; `condition` may be a coroutine's."""
    __tracebackhide__ = True
    deadline = time.monotonic() + seconds
    while not await _holds(condition):
        assert time.monotonic() < deadline, _late(condition, seconds)
        await asyncio.sleep(0.01)


async def _holds(condition: Callable[[], object]) -> object:
    found = condition()
    return await found if inspect.isawaitable(found) else found


def _late(condition: Callable[[], object], seconds: float) -> str:
    told = getattr(condition, "__qualname__", repr(condition))
    if told.endswith("<lambda>"):
        told = " ".join(inspect.getsource(condition).split())
    return f"not within {seconds:g} s: {told}"
