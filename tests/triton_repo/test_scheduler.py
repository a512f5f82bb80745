"""Promise: every request runs to its end, oldest first, within batch, step and block limits."""

from __future__ import annotations

import random

import pytest

from triton_repo.executor.blocks import BlockManager
from triton_repo.executor.group import Group
from triton_repo.executor.request import FinishReason, Request
from triton_repo.executor.scheduler import Chunk, Scheduler


def scheduler(
    blocks: int = 100, batch: int = 4, tokens: int = 16, *, no_evict: bool = False
) -> Scheduler:
    return Scheduler(
        BlockManager(blocks, 4),
        max_batch_size=batch,
        max_num_tokens=tokens,
        guaranteed_no_evict=no_evict,
    )


def asked(prompt: int, answer: int = 5, first: int = 0, answers: int = 1) -> Group:
    ids = list(range(first, first + prompt))
    request = Request(input_ids=ids, max_tokens=answer, num_return_sequences=answers)
    return Group(request, 10_000, lambda output: None)


def generated(group: Group) -> int:
    return group.sequences[0].generated


def step(one: Scheduler) -> list[Chunk]:
    """Schedule, pretend to compute, and give each complete sequence a token."""
    chunks = one.schedule()
    assert sum(chunk.end - chunk.sequence.computed for chunk in chunks) <= one.max_num_tokens
    assert len({id(chunk.sequence) for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert len(chunk.sequence.blocks) * 4 >= chunk.end
        assert chunk.end > chunk.sequence.computed
    one.settle(chunks)
    for chunk in chunks:
        if chunk.sequence.decoded:
            for each in chunk.group.chosen_with(chunk.sequence):
                if each.append(7) is FinishReason.LENGTH:
                    one.drop(chunk.group, each)
    return chunks


def test_a_long_prompt_is_computed_in_chunks_beside_running_answers() -> None:
    one = scheduler()
    short, long = asked(4, answer=50), asked(40, first=100)
    one.add(short)
    step(one)
    one.add(long)
    sizes = [[(c.group, c.end) for c in step(one)] for _ in range(3)]
    assert [(short, 5), (long, 15)] == sizes[0]
    assert [(short, 6), (long, 30)] == sizes[1]
    assert [(short, 7), (long, 40)] == sizes[2]
    assert generated(long) == 1


def test_no_more_than_the_batch_size_run_at_once() -> None:
    one = scheduler(batch=2)
    for index in range(5):
        one.add(asked(2, first=10 * index))
    assert len(step(one)) == 2
    assert len(one.waiting) == 3


def test_the_youngest_gives_way_when_blocks_run_out_and_comes_back() -> None:
    one = scheduler(blocks=4)
    old, young = asked(4, answer=9), asked(7, answer=6, first=50)
    one.add(old)
    one.add(young)
    for _ in range(30):
        step(one)
    assert one.preemptions > 0
    assert (generated(old), generated(young)) == (9, 6)
    assert one.blocks.free == 4


def test_a_prompt_that_waits_for_room_is_looked_up_again_only_when_blocks_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = scheduler(blocks=11)
    running, waiting = asked(4, answer=16), asked(40, first=100)
    for group in (running, waiting):
        one.add(group)
    looked = []
    match = one.blocks.match_prefix
    monkeypatch.setattr(one.blocks, "match_prefix", lambda s: (looked.append(s), match(s)))
    steps = 0
    while not waiting.running:
        step(one)
        steps += 1
    # the running answer takes a block, or fills one, every fourth step
    assert steps == running.request.max_tokens + 1
    assert waiting.sequences[0] in looked
    assert len(looked) < steps * 3 / 4


def test_guaranteed_no_evict_never_preempts() -> None:
    one = scheduler(blocks=4, no_evict=True)
    old, young = asked(4, answer=9), asked(7, answer=6, first=50)
    one.add(old)
    one.add(young)
    step(one)
    assert list(one.waiting) == [young]
    for _ in range(30):
        step(one)
    assert one.preemptions == 0
    assert (generated(old), generated(young)) == (9, 6)


@pytest.mark.parametrize("no_evict", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_everything_ends_in_a_random_load(seed: int, no_evict: bool) -> None:
    rng = random.Random(seed)
    one = scheduler(blocks=12, batch=5, tokens=9, no_evict=no_evict)
    everything = []
    for turn in range(20_000):
        if turn > 1500 and not (one.running or one.waiting):
            break
        if turn < 1500 and rng.random() < 0.2:
            prompt = rng.randrange(1, 30)
            new = asked(prompt, answer=rng.randrange(1, 48 - prompt), first=rng.randrange(3))
            one.add(new)
            everything.append(new)
        if rng.random() < 0.02 and one.running:
            victim = rng.choice(one.running)
            one.remove(victim)
            everything.remove(victim)
        step(one)
    assert not one.running
    assert not one.waiting
    assert all(generated(g) == g.request.max_tokens for g in everything)
    assert one.blocks.free == 12
