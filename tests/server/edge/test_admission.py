"""Promise: so many at once, the others in line, first come first, and nobody is forgotten there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from waiting import eventually

from server.admission import Admission
from server.errors import DeadlineError, OverloadedError


@asynccontextmanager
async def place(admission: Admission) -> AsyncIterator[None]:
    await admission.enter()
    try:
        yield
    finally:
        admission.leave()


async def in_line(admission: Admission, count: int) -> None:
    await eventually(lambda: admission.waiting == count)


async def test_whoever_came_first_is_next_even_before_one_who_comes_just_then() -> None:
    admission = Admission(1, 10)
    order: list[int] = []

    async def ask(number: int) -> None:
        async with place(admission):
            order.append(number)

    async with place(admission):
        tasks = []
        for number in range(3):
            tasks.append(asyncio.create_task(ask(number)))
            await in_line(admission, number + 1)
    assert not admission.enter_now(), "the place is the first's in line"
    tasks.append(asyncio.create_task(ask(3)))
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_beyond_the_line_one_is_told_at_once_when_to_come_back() -> None:
    admission = Admission(1, 1)
    async with place(admission):
        waiting = asyncio.create_task(admission.enter())
        await in_line(admission, 1)
        with pytest.raises(OverloadedError) as caught:
            await admission.enter()
        assert 1 <= caught.value.retry_after_seconds <= 60
    await waiting
    admission.leave()
    assert admission.in_flight == 0


async def test_a_deadline_is_kept_while_waiting() -> None:
    admission = Admission(1, 5)
    now = asyncio.get_running_loop().time()
    async with place(admission):
        with pytest.raises(DeadlineError):
            await admission.enter(deadline=now + 0.01)
        assert admission.waiting == 0
    assert admission.in_flight == 0


async def test_who_gives_up_leaves_the_line_and_passes_on_a_place_already_given() -> None:
    admission = Admission(1, 5)
    await admission.enter()
    first = asyncio.create_task(admission.enter())
    await in_line(admission, 1)
    second = asyncio.create_task(admission.enter())
    third = asyncio.create_task(admission.enter())
    await in_line(admission, 3)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert admission.waiting == 2
    admission.leave()  # the place is the first's, who goes before it knows
    first.cancel()
    await asyncio.wait_for(third, 5)
    admission.leave()
    assert first.cancelled()
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_a_place_given_back_just_as_the_next_in_line_leaves_is_the_one_afters() -> None:
    admission = Admission(1, 5)
    await admission.enter()
    gone, after = (asyncio.create_task(admission.enter()) for _ in range(2))
    await in_line(admission, 2)
    gone.cancel()
    admission.leave()
    await asyncio.wait_for(after, 20)
    gone, *_ = waiting = [asyncio.create_task(admission.enter()) for _ in range(2)]
    await in_line(admission, 2)
    for task in waiting:
        task.cancel()
    admission.leave()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (admission.in_flight, admission.waiting) == (0, 0)
