"""The KV cache's blocks: who holds which, and which hold a prefix worth reusing."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from triton_repo.executor.sequence import Sequence

_ROOT = 0


class BlockManager:
    """Hands out blocks of `block_size` tokens and shares full ones between equal prefixes.

    A full block is known by (key of the block before it, its own tokens): two sequences with the
    same tokens up to its end meet in the same key, with no hash to collide. A released block keeps
    its content until it is handed out again, the longest unused first.
    """

    def __init__(self, blocks: int, block_size: int, *, reuse: bool = True) -> None:
        self.block_size = block_size
        self.total = blocks
        self.reuse = reuse
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._users = [0] * blocks
        self._block_of: dict[tuple[int, tuple[int, ...]], int] = {}
        self._content: dict[int, tuple[tuple[int, tuple[int, ...]], int]] = {}
        self._next_key = count(_ROOT + 1)

    @property
    def free(self) -> int:
        """How many blocks nobody holds."""
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks `tokens` tokens take."""
        return -(-tokens // self.block_size)

    def match_prefix(self, sequence: Sequence) -> None:
        """Give a sequence without blocks those that already hold its beginning.

        Its last token is always left to compute: its logits are wanted.
        """
        if not self.reuse:
            return
        for start in range(0, len(sequence.tokens) - self.block_size, self.block_size):
            tokens = tuple(sequence.tokens[start : start + self.block_size])
            block = self._block_of.get((self._parent(sequence), tokens))
            if block is None:
                return
            self._hold(block)
            sequence.blocks.append(block)
            sequence.block_keys.append(self._content[block][1])
            sequence.computed += self.block_size

    def grow(self, sequence: Sequence, tokens: int) -> bool:
        """Have room for the sequence's first `tokens` tokens; False if there are too few blocks."""
        missing = self.blocks_for(tokens) - len(sequence.blocks)
        if missing > self.free:
            return False
        for _ in range(missing):
            block, _ = self._free.popitem(last=False)
            self._forget(block)
            self._users[block] = 1
            sequence.blocks.append(block)
        return True

    def publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that the sequence has filled since the last call."""
        if not self.reuse:
            return
        for index in range(len(sequence.block_keys), sequence.computed // self.block_size):
            start = index * self.block_size
            name = (self._parent(sequence), tuple(sequence.tokens[start : start + self.block_size]))
            block = self._block_of.setdefault(name, sequence.blocks[index])
            if block not in self._content:
                self._content[block] = (name, next(self._next_key))
            sequence.block_keys.append(self._content[block][1])

    def release(self, sequence: Sequence) -> None:
        """Take all blocks back; the end of a sequence is forgotten before its beginning."""
        for block in reversed(sequence.blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                self._free[block] = None
        sequence.blocks.clear()
        sequence.block_keys.clear()
        sequence.computed = 0

    def _parent(self, sequence: Sequence) -> int:
        return sequence.block_keys[-1] if sequence.block_keys else _ROOT

    def _hold(self, block: int) -> None:
        self._users[block] += 1
        self._free.pop(block, None)

    def _forget(self, block: int) -> None:
        content = self._content.pop(block, None)
        if content is not None:
            del self._block_of[content[0]]
