from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.backend.base import Tokens
from server.backend.merge import MAX_UNREAD_MESSAGES, Merge
from server.errors import NotReadyError


class Source:
    """Yields 0, 1, 2, …; then fails or hangs. Knows how far it got and whether it was closed."""

    def __init__(self, count: int, *, failure: Exception | None = None, hang: bool = False) -> None:
        self.count, self.failure, self.hang = count, failure, hang
        self.given, self.closed = 0, False

    async def tokens(self) -> AsyncIterator[Tokens]:
        try:
            for number in range(self.count):
                self.given += 1
                yield Tokens(ids=[number])
            if self.failure:
                raise self.failure
            if self.hang:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_came_while_nobody_read_is_one_batch() -> None:
    async with Merge([Source(3).tokens(), Source(2).tokens()]) as merge:
        await settled()
        batch = await merge.next_batch()
        assert sorted((i, t.ids[0]) for i, t in batch) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
        assert await merge.next_batch() == []


async def test_an_unread_source_waits() -> None:
    source = Source(10 * MAX_UNREAD_MESSAGES)
    async with Merge([source.tokens()]) as merge:
        await settled()
        assert source.given <= MAX_UNREAD_MESSAGES
        total = 0
        while batch := await merge.next_batch():
            total += len(batch)
    assert total == 10 * MAX_UNREAD_MESSAGES


async def test_leaving_closes_every_source() -> None:
    sources = [Source(1, hang=True), Source(10 * MAX_UNREAD_MESSAGES), Source(0, hang=True)]
    async with Merge([source.tokens() for source in sources]) as merge:
        await merge.next_batch()
    assert all(source.closed for source in sources)


async def test_one_source_can_be_stopped_while_others_go_on() -> None:
    sources = [Source(1, hang=True), Source(1, hang=True)]
    async with Merge([source.tokens() for source in sources]) as merge:
        await merge.next_batch()
        merge.stop(0)
        await settled()
        assert [source.closed for source in sources] == [True, False]


async def test_a_failure_comes_after_what_came_before_it() -> None:
    async with Merge([Source(2, failure=NotReadyError("gone")).tokens()]) as merge:
        await settled()
        assert len(await merge.next_batch()) == 2
        with pytest.raises(NotReadyError):
            await merge.next_batch()
