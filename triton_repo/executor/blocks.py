"""The KV cache's blocks: who holds which, and which hold a prefix worth reusing."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count

from triton_repo.executor.free_blocks import FreeBlocks
from triton_repo.executor.request import DEFAULT_PRIORITY, LEAST_PRIORITY
from triton_repo.executor.sequence import Sequence

_Name = tuple[Hashable, tuple[int, ...]]
_Kept = tuple[int, int | None]
"""Priority, and for how many ms from its release."""
_DEFAULT: _Kept = (DEFAULT_PRIORITY, None)
_NOTHING: _Kept = (LEAST_PRIORITY, None)
"""For a block that holds no one's beginning."""


class BlockManager:
    """Hands out blocks of `block_size` tokens and shares full ones between equal prefixes.

    A full block is known by (key of the block before it, its own tokens): two sequences with the
    same tokens up to its end, and the same adapter, meet in the same key, with no hash to
    collide. A released block keeps its content until it is handed out again; `FreeBlocks` says in
    which order. Sequences that fork share all blocks; one that is about to write into a shared
    block gets a copy of it (`copies`: from, to; to be made in this order). `changes` grows with
    whatever may let a sequence in that found no room before.
    """

    def __init__(self, blocks: int, block_size: int, *, reuse: bool = True) -> None:
        self.block_size = block_size
        self.total = blocks
        self.reuse = reuse
        self.copies: list[tuple[int, int]] = []
        self.changes = 0
        self._free = FreeBlocks(blocks)
        self._users = [0] * blocks
        self._kept = [_DEFAULT] * blocks
        self._block_of: dict[_Name, int] = {}
        self._content: dict[int, tuple[_Name, int]] = {}
        self._children: dict[Hashable, set[int]] = {}
        self._next_key = count()

    @property
    def free(self) -> int:
        """How many blocks nobody holds."""
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks `tokens` tokens take."""
        return -(-tokens // self.block_size)

    def match_prefix(self, sequence: Sequence) -> None:
        """Give a sequence without blocks those that already hold its beginning.

        Its last token is always left to compute: its logits are wanted. So are all of the prompt
        where the request asks for them.
        """
        if not self.reuse or sequence.request.context_logits:
            return
        for start in range(0, len(sequence.tokens) - self.block_size, self.block_size):
            tokens = tuple(sequence.tokens[start : start + self.block_size])
            block = self._block_of.get((_parent(sequence), tokens))
            if block is None:
                return
            self._hold(block)
            kept = _kept(sequence, start)
            self._kept[block] = (self._kept[block][0], None) if kept is None else kept
            sequence.blocks.append(block)
            sequence.block_keys.append(self._content[block][1])
            sequence.computed += self.block_size

    def grow(self, sequence: Sequence, tokens: int) -> bool:
        """Have room to write the sequence's tokens from the first that isn't computed to `tokens`.

        False, with nothing done, if there are too few blocks.
        """
        index = sequence.computed // self.block_size
        held = len(sequence.blocks)
        missing = self.blocks_for(tokens) - held
        shared = index < held and self._users[sequence.blocks[index]] > 1
        if missing <= 0 and not shared:
            return True
        if max(missing, 0) + shared > len(self._free):
            return False
        if shared:
            self._copy(sequence, index)
        for start in range(held * self.block_size, tokens, self.block_size):
            sequence.blocks.append(self._take(sequence, start))
        return True

    def fork(self, parent: Sequence, child: Sequence, tokens: int) -> None:
        """Give a sequence without blocks those that hold its parent's first `tokens` tokens."""
        child.blocks = parent.blocks[: self.blocks_for(tokens)]
        child.block_keys = parent.block_keys[: tokens // self.block_size]
        child.computed = tokens
        for block in child.blocks:
            self._users[block] += 1

    def take_copies(self) -> list[tuple[int, int]]:
        """The copies to be made before the next step, once."""
        copies, self.copies = self.copies, []
        return copies

    def trim(self, sequence: Sequence) -> None:
        """Take back the blocks beyond what is computed."""
        while len(sequence.blocks) > self.blocks_for(sequence.computed):
            self._drop(sequence.blocks.pop())

    def publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that the sequence has filled since the last call."""
        if not self.reuse:
            return
        for index in range(len(sequence.block_keys), sequence.computed // self.block_size):
            start = index * self.block_size
            name = (_parent(sequence), tuple(sequence.tokens[start : start + self.block_size]))
            block = self._block_of.setdefault(name, sequence.blocks[index])
            if block not in self._content:
                self.changes += 1
                self._content[block] = (name, next(self._next_key))
                self._children.setdefault(name[0], set()).add(block)
            sequence.block_keys.append(self._content[block][1])

    def release(self, sequence: Sequence) -> None:
        """Take all blocks back; the end of a sequence is forgotten before its beginning."""
        self.publish(sequence)
        for block in reversed(sequence.blocks):
            self._drop(block)
        sequence.blocks.clear()
        sequence.block_keys.clear()
        sequence.computed = 0

    def _take(self, sequence: Sequence, start: int) -> int:
        """A free block for the tokens from position `start`."""
        block = self._free.take()
        new = block not in self._content
        self._forget(block)
        self._users[block] = 1
        self._kept[block] = _kept(sequence, start) or _DEFAULT
        if sequence.computed <= start < sequence.prompt_len:
            sequence.usage.total += 1
            sequence.usage.new += new
        return block

    def _copy(self, sequence: Sequence, index: int) -> None:
        """Give a sequence a block of its own for one that it shares."""
        shared = sequence.blocks[index]
        sequence.blocks[index] = self._take(sequence, index * self.block_size)
        self.copies.append((shared, sequence.blocks[index]))
        self._drop(shared)

    def _hold(self, block: int) -> None:
        self._users[block] += 1
        if block in self._free:
            self._free.remove(block)

    def _drop(self, block: int) -> None:
        self._users[block] -= 1
        self.changes += 1
        if self._users[block] == 0:
            worth = self._kept[block] if block in self._content else _NOTHING
            self._free.put(block, *worth)

    def _forget(self, block: int) -> None:
        """Drop what is known of a block, and of the blocks that can only be found through it."""
        lost = [block]
        while lost:
            content = self._content.pop(lost.pop(), None)
            if content is None:
                continue
            (parent, tokens), key = content
            siblings = self._children[parent]
            siblings.discard(self._block_of.pop((parent, tokens)))
            if not siblings:
                del self._children[parent]
            children = self._children.get(key, ())
            lost.extend(children)
            for child in children:
                if child in self._free:
                    self._free.remove(child)
                    self._free.put(child, *_NOTHING)


def _parent(sequence: Sequence) -> Hashable:
    """The key of the block before the next; the first is told from others' by the adapter."""
    if sequence.block_keys:
        return sequence.block_keys[-1]
    adapter = sequence.request.adapter
    return None if adapter is None else ("adapter", adapter.serial)


def _kept(sequence: Sequence, start: int) -> _Kept | None:
    """How long its request wants the block at position `start` kept; None if it doesn't say."""
    retention = sequence.request.retention
    if retention is None:
        return None
    if start >= sequence.prompt_len:
        return retention.decode_priority, retention.decode_duration_ms
    for begin, end, priority, duration_ms in retention.ranges:
        if begin <= start and (end is None or start < end):
            return priority, duration_ms
    return None
