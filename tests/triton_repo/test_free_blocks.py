"""Promise: what is least worth keeping is given away first, as in TensorRT-LLM."""

from __future__ import annotations

import random

from triton_repo.executor.free_blocks import FreeBlocks

MS = 1_000_000


def test_the_longest_free_goes_first() -> None:
    free = FreeBlocks(3)
    order = [free.take() for _ in range(3)]
    for block in (order[1], order[0], order[2]):
        free.put(block, 35)
    assert [free.take() for _ in range(3)] == [order[1], order[0], order[2]]


def test_a_lower_priority_goes_first() -> None:
    free = FreeBlocks(0)
    for block, priority in ((1, 80), (2, 35), (3, 0), (4, 35)):
        free.put(block, priority)
    assert [free.take() for _ in range(4)] == [3, 2, 4, 1]


def test_a_duration_ends_in_the_default_priority() -> None:
    """The times of TensorRT-LLM's own test, TimedBlockTest."""
    now = [5]
    free = FreeBlocks(0, clock=lambda: now[0] * MS)
    free.put(1, 80, 3)
    free.put(2, 50, 8)
    free.put(3, 60)
    now[0] = 9
    assert [free.take() for _ in range(3)] == [1, 2, 3]


def test_a_block_taken_before_its_time_does_not_expire_later() -> None:
    now = [0]
    free = FreeBlocks(0, clock=lambda: now[0] * MS)
    free.put(1, 80, 5)
    free.remove(1)
    free.put(1, 80)
    free.put(2, 70)
    now[0] = 10
    assert [free.take(), free.take()] == [2, 1]


def test_every_block_is_given_away_once_in_a_long_random_run() -> None:
    rng = random.Random(0)
    now = [0]
    free = FreeBlocks(10, clock=lambda: now[0] * MS)
    held: set[int] = set()
    for _ in range(5000):
        now[0] += rng.randrange(3)
        if held and rng.random() < 0.5:
            block = held.pop()
            free.put(block, rng.choice([0, 20, 35, 90]), rng.choice([None, 0, 7]))
        elif len(free):
            block = free.take()
            assert block not in held
            held.add(block)
        assert len(free) == 10 - len(held)


def test_a_block_kept_for_long_again_and_again_costs_no_memory() -> None:
    free = FreeBlocks(0, clock=lambda: 0)
    for _ in range(1000):
        free.put(1, 80, 10_000)
        free.remove(1)
    free.put(1, 80, 10_000)
    assert len(free._expiring) < 50
