"""A stand-in for the engine's runner: a cache of token ids, and logits that depend on all of them.

It is strict: what a sequence's blocks hold must be the sequence's own tokens, at every step, and
no two sequences may write into one block. It computes a step in microseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from triton_repo.executor.scheduler import Chunk


class RememberingRunner:
    """Takes the place of `executor.Runner`; `vocab` tokens, blocks of 32."""

    vocab = 384
    cache_bytes = 0

    def __init__(self, engine: Any, dtype: str, blocks: int, *, threads: int = 0) -> None:
        self._cache = np.full((blocks, 32), -1)
        self._rows: dict[bytes, Any] = {}

    def run(self, chunks: list[Chunk], copies: list[tuple[int, int]]) -> Any:
        """As the real one's: float32[rows, vocab]."""
        for source, target in copies:
            self._cache[target] = self._cache[source]
        written: set[tuple[int, int]] = set()
        for chunk in chunks:
            start, table = chunk.sequence.computed, chunk.sequence.blocks
            assert len(table) * 32 >= chunk.end
            for position, token in enumerate(chunk.sequence.ids(start, chunk.end), start):
                place = table[position // 32], position % 32
                assert place not in written, "two sequences write into one block"
                written.add(place)
                self._cache[place] = token
        rows = [self._row(c, end) for c in chunks for end in range(c.first_row + 1, c.end + 1)]
        return np.stack(rows) if rows else np.empty((0, self.vocab), np.float32)

    def _row(self, chunk: Chunk, end: int) -> Any:
        """The logits after the first `end` tokens, as the cache has them."""
        held = self._cache[chunk.sequence.blocks].reshape(-1)[:end]
        assert held.tolist() == chunk.sequence.ids(0, end), "another's tokens are in its blocks"
        key = held.tobytes()
        if key not in self._rows:
            seed = [*held.tolist(), end]
            rng = np.random.Generator(np.random.PCG64(seed))
            self._rows[key] = rng.normal(0, 2, self.vocab).astype(np.float32)
        return self._rows[key]
