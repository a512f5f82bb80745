from __future__ import annotations

import asyncio

import pytest
from token_batches import next_batch

from server.backend.base import GenerateRequest, PromptLogProb, Take, Tokens
from server.backend.memory import MemoryBackend, Script
from server.backend.merge import Merge
from server.errors import NotReadyError


class Source:
    """Gives what `came` holds, all at once; then ends, fails or hangs."""

    def __init__(self, *numbers: int, failure: Exception | None = None, hang: bool = False) -> None:
        self.came = [Tokens(ids=[number]) for number in numbers]
        self.failure, self.hang, self.cancelled, self.reads = failure, hang, False, 0

    async def run(self, take: Take) -> bool:
        while True:
            self.reads += 1
            if self.came:
                came, self.came = self.came, []
                if not take(came):
                    return True
            elif self.failure:
                raise self.failure
            elif self.hang:
                await asyncio.Event().wait()
            else:
                return False

    def cancel(self) -> None:
        self.cancelled = True


def numbers(batch: list[tuple[int, Tokens]]) -> list[tuple[int, int]]:
    return sorted((index, tokens.ids[0]) for index, tokens in batch)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_came_of_several_streams_is_one_batch() -> None:
    merge = Merge([Source(0, 1, 2), Source(0, 1)])
    await settled()
    assert numbers(await merge.next_batch()) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert await merge.next_batch() == []
    assert await merge.next_batch() == []


async def test_a_stream_whose_tokens_nobody_takes_is_not_read_on() -> None:
    sources = [Source(1), Source(1)]
    merge = Merge(sources)
    await settled()
    sources[0].came = [Tokens(ids=[2])]
    await settled()
    assert [source.reads for source in sources] == [1, 1]
    assert numbers(await merge.next_batch()) == [(0, 1), (1, 1)]
    assert numbers(await merge.next_batch()) == [(0, 2)]
    merge.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_closing_cancels_every_stream(count: int) -> None:
    sources = [Source(1, hang=True) for _ in range(count)]
    merge = Merge(sources)
    await merge.next_batch()
    merge.close()
    merge.close()
    assert all(source.cancelled for source in sources)
    assert await merge.next_batch() == []


async def test_one_stream_can_be_stopped_while_the_others_go_on() -> None:
    sources = [Source(1, hang=True), Source(1, hang=True)]
    merge = Merge(sources)
    await settled()
    merge.stop(0)
    assert numbers(await merge.next_batch()) == [(1, 1)]
    assert [source.cancelled for source in sources] == [True, False]
    merge.close()


@pytest.mark.parametrize("others", [[], [Source(hang=True)]], ids=["alone", "of two"])
async def test_a_failure_comes_after_what_came_before_it(others: list[Source]) -> None:
    merge = Merge([Source(7, 8, failure=NotReadyError("gone")), *others])
    assert numbers(await merge.next_batch()) == [(0, 7), (0, 8)]
    with pytest.raises(NotReadyError):
        await merge.next_batch()
    merge.close()


def request(**values: object) -> GenerateRequest:
    defaults = {"model": "m", "request_id": "r", "input_ids": [1], "max_tokens": 9, "end_id": 2}
    return GenerateRequest(**{**defaults, "seed": 0, **values})  # type: ignore[arg-type]


async def drain(script: Script, asked: GenerateRequest) -> list[Tokens]:
    stream = MemoryBackend(script).generate(asked)
    found = []
    while batch := await next_batch(stream):
        found += batch
    return found


async def test_the_backend_in_memory_ends_where_an_engine_would() -> None:
    script = Script(messages=[[5], [6, 2, 7]])
    assert [list(t.ids) for t in await drain(script, request())] == [[5], [6, 2]]
    assert [list(t.ids) for t in await drain(script, request(max_tokens=2))] == [[5], [6]]
    assert (await drain(script, request(end_id=-1)))[-1] == Tokens(ids=(), final=True)


async def test_the_backend_in_memory_plays_every_sequence_with_what_was_asked() -> None:
    prompt = [PromptLogProb(log_prob=-1.0)]
    script = Script(sequences=[[[5], [2]], [[6]]], top=[(5, -0.1), (6, -2.0)], prompt=prompt)
    found = await drain(script, request(sequences=2, prompt_log_probs=0, top_log_probs=1))
    assert [(t.sequence, list(t.ids)) for t in found] == [(0, [5]), (1, [6]), (0, [2]), (0, [])]
    assert found[0].prompt == prompt
    assert found[0].top == [[(5, -0.1)]]
    assert [t.final for t in found] == [False, False, False, True]


async def test_a_cancelled_script_plays_no_more_and_is_recorded() -> None:
    backend = MemoryBackend(Script(messages=[[5]], hang=True))
    stream = backend.generate(request())
    assert await next_batch(stream) == [Tokens(ids=[5])]
    waiting = asyncio.create_task(next_batch(stream))
    await settled()
    stream.cancel()
    assert await waiting == []
    assert (backend.cancelled, backend.running) == (["r"], 0)
