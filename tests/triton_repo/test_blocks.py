"""Promise: blocks are shared between equal prefixes, and never handed to two at once."""

from __future__ import annotations

import random

from triton_repo.executor.adapters import Adapter
from triton_repo.executor.blocks import BlockManager
from triton_repo.executor.request import Request, Retention
from triton_repo.executor.sequence import Sequence


def sequence(tokens: list[int]) -> Sequence:
    return Sequence(Request(input_ids=tokens, max_tokens=100), 10_000)


def compute(blocks: BlockManager, one: Sequence) -> None:
    assert blocks.grow(one, len(one.tokens))
    one.computed = len(one.tokens)
    blocks.publish(one)


def test_an_equal_prefix_is_found_in_the_same_blocks() -> None:
    blocks = BlockManager(10, 4)
    first, second = sequence(list(range(10))), sequence([*range(8), 99, 98])
    compute(blocks, first)
    blocks.match_prefix(second)
    assert second.blocks == first.blocks[:2]
    assert second.computed == 8


def test_the_last_token_is_always_left_to_compute() -> None:
    blocks = BlockManager(10, 4)
    first, again = sequence(list(range(8))), sequence(list(range(8)))
    compute(blocks, first)
    blocks.match_prefix(again)
    assert again.computed == 4


def test_the_same_tokens_after_another_beginning_are_not_taken() -> None:
    blocks = BlockManager(10, 4)
    compute(blocks, sequence([1, 1, 1, 1, 5, 6, 7, 8]))
    other = sequence([2, 2, 2, 2, 5, 6, 7, 8, 9])
    blocks.match_prefix(other)
    assert other.blocks == []


def test_a_released_prefix_is_kept_until_its_block_is_needed() -> None:
    blocks = BlockManager(4, 4)
    first = sequence(list(range(8)))
    compute(blocks, first)
    blocks.release(first)
    assert blocks.free == 4
    again = sequence(list(range(9)))
    blocks.match_prefix(again)
    assert again.computed == 8
    blocks.release(again)
    compute(blocks, sequence(list(range(100, 116))))
    late = sequence(list(range(9)))
    blocks.match_prefix(late)
    assert late.computed == 0


def test_the_end_of_a_prefix_is_given_away_before_its_beginning() -> None:
    blocks = BlockManager(3, 4)
    first = sequence(list(range(12)))
    compute(blocks, first)
    blocks.release(first)
    compute(blocks, sequence([50, 51, 52, 53]))
    again = sequence(list(range(13)))
    blocks.match_prefix(again)
    assert again.computed == 8


def test_growth_takes_all_or_nothing() -> None:
    blocks = BlockManager(2, 4)
    one = sequence(list(range(12)))
    assert not blocks.grow(one, 12)
    assert one.blocks == []
    assert blocks.free == 2


def test_without_reuse_nothing_is_found() -> None:
    blocks = BlockManager(10, 4, reuse=False)
    compute(blocks, sequence(list(range(8))))
    again = sequence(list(range(8)))
    blocks.match_prefix(again)
    assert again.blocks == []


def test_no_block_is_lost_or_shared_wrongly_in_a_long_random_run() -> None:
    rng = random.Random(0)
    blocks = BlockManager(24, 4)
    held: list[Sequence] = []
    content: dict[int, tuple[int, ...]] = {}
    for _ in range(3000):
        if held and (rng.random() < 0.5 or blocks.free < 6):
            blocks.release(held.pop(rng.randrange(len(held))))
            continue
        one = sequence([rng.randrange(2) for _ in range(rng.randrange(1, 20))])
        blocks.match_prefix(one)
        for index, block in enumerate(one.blocks):
            assert content[block] == tuple(one.tokens[: (index + 1) * 4])
        if not blocks.grow(one, len(one.tokens)):
            blocks.release(one)
            continue
        one.computed = len(one.tokens)
        blocks.publish(one)
        for index in range(one.computed // 4):
            content[one.blocks[index]] = tuple(one.tokens[: (index + 1) * 4])
        held.append(one)
        owners = [b for s in held for b in s.blocks[s.computed // 4 :]]
        assert len(owners) == len(set(owners)), "a block being written has two holders"
    for one in held:
        blocks.release(one)
    assert blocks.free == 24


def test_forks_share_blocks_and_the_first_to_write_gets_a_copy() -> None:
    blocks = BlockManager(10, 4)
    parent, child = sequence(list(range(6))), sequence(list(range(6)))
    compute(blocks, parent)
    blocks.fork(parent, child, 6)
    assert child.blocks == parent.blocks
    assert blocks.free == 8
    assert blocks.grow(child, 7)
    assert child.blocks[0] == parent.blocks[0]
    assert child.blocks[1] != parent.blocks[1]
    assert blocks.take_copies() == [(parent.blocks[1], child.blocks[1])]
    before = parent.blocks[1]
    assert blocks.grow(parent, 7)
    assert parent.blocks[1] == before
    assert blocks.take_copies() == []
    blocks.release(parent)
    blocks.release(child)
    assert blocks.free == 10


def test_a_fork_at_a_blocks_end_copies_nothing() -> None:
    blocks = BlockManager(10, 4)
    parent, child = sequence(list(range(8))), sequence(list(range(8)))
    compute(blocks, parent)
    blocks.fork(parent, child, 8)
    assert blocks.grow(child, 9)
    assert blocks.grow(parent, 9)
    assert blocks.take_copies() == []
    assert parent.blocks[2] != child.blocks[2]


def test_a_copy_needs_a_free_block() -> None:
    blocks = BlockManager(2, 4)
    parent, child = sequence(list(range(6))), sequence(list(range(6)))
    compute(blocks, parent)
    blocks.fork(parent, child, 6)
    assert not blocks.grow(child, 7)
    assert child.blocks == parent.blocks
    blocks.release(parent)
    assert blocks.grow(child, 7)


def test_another_adapters_prefix_is_not_taken() -> None:
    def of(adapter: Adapter | None) -> Sequence:
        request = Request(input_ids=list(range(6)), max_tokens=100, adapter=adapter)
        return Sequence(request, 10_000)

    one, again = (Adapter(task_id=1, serial=serial, parts={}, nbytes=0) for serial in (1, 2))
    for mine in (None, one, again):
        blocks = BlockManager(10, 4)
        compute(blocks, of(mine))
        for theirs in (None, one, again):
            found = of(theirs)
            blocks.match_prefix(found)
            assert (found.computed == 4) == (mine is theirs)


def test_retention_says_which_prefix_outlives_which() -> None:
    def of(first: int, ranges: tuple[tuple[int, int | None, int, int | None], ...]) -> Sequence:
        request = Request(
            input_ids=list(range(first, first + 9)),
            max_tokens=100,
            retention=Retention(ranges=ranges, decode_priority=10),
        )
        return Sequence(request, 10_000)

    def kept(blocks: BlockManager, first: int) -> int:
        again = sequence(list(range(first, first + 9)))
        blocks.match_prefix(again)
        size = again.computed
        blocks.release(again)
        return size

    for ranges, expected in (
        (((0, None, 90, None),), (8, 4)),
        (((0, 4, 90, None), (4, None, 20, None)), (4, 8)),
        (((0, None, 10, None),), (4, 8)),
    ):
        blocks = BlockManager(6, 4)
        for first, theirs in ((0, ranges), (100, ())):
            one = of(first, theirs)
            compute(blocks, one)
            blocks.release(one)
        compute(blocks, sequence(list(range(200, 212))))
        assert (kept(blocks, 0), kept(blocks, 100)) == expected


def test_what_can_only_be_found_through_a_forgotten_block_is_forgotten_too() -> None:
    blocks = BlockManager(3, 4)
    request = Request(
        input_ids=list(range(9)),
        max_tokens=9,
        retention=Retention(ranges=((0, 4, 10, None), (4, None, 90, None))),
    )
    one = Sequence(request, 100)
    compute(blocks, one)
    blocks.release(one)
    for start in (50, 60, 70):
        other = sequence(list(range(start, start + 4)))
        compute(blocks, other)
        blocks.release(other)
    found = sequence(list(range(9)))
    blocks.match_prefix(found)
    assert found.computed == 0
    assert len(blocks._block_of) == len(blocks._content) == 3
