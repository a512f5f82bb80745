"""Which tokens of which sequences the next step computes: in-flight batching in two phases."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from triton_repo.executor.blocks import BlockManager
from triton_repo.executor.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens [sequence.computed, end) of a sequence, to be computed in one step."""

    sequence: Sequence
    end: int

    @property
    def completes(self) -> bool:
        """Whether the step reaches the newest token, so that the next one can be chosen."""
        return self.end == len(self.sequence.tokens)


class Scheduler:
    """First come, first served, at most `max_batch_size` sequences and `max_num_tokens` a step.

    Answers go on before prompts begin; prompts are computed in chunks of what is left of the
    step. `guaranteed_no_evict` admits a request only when its longest possible answer fits;
    without it (upstream's `max_utilization`) the youngest sequence gives up its blocks when they
    run out, and is computed again later.
    """

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_batch_size: int,
        max_num_tokens: int,
        guaranteed_no_evict: bool = False,
    ) -> None:
        self.blocks = blocks
        self.max_batch_size = max_batch_size
        self.max_num_tokens = max_num_tokens
        self.guaranteed_no_evict = guaranteed_no_evict
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that is over or cancelled; its blocks are free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self.blocks.release(sequence)

    def schedule(self) -> list[Chunk]:
        """The next step; empty when there is nothing to do."""
        chunks: list[Chunk] = []
        budget = self.max_num_tokens
        for sequence in list(self.running):
            # A prompt begun is the youngest sequence, so the answers before it had their tokens;
            # only the youngest are preempted, so nothing already in `chunks` is.
            if not (budget and sequence in self.running and self._room(sequence)):
                break
            budget -= self._take(chunks, sequence, budget)
        while budget and self.waiting and len(self.running) < self.max_batch_size:
            if not self._admit(self.waiting[0]):
                break
            self.running.append(self.waiting.popleft())
            budget -= self._take(chunks, self.running[-1], budget)
        return chunks

    def _take(self, chunks: list[Chunk], sequence: Sequence, budget: int) -> int:
        """Schedule as much of a sequence as budget and free blocks allow; say how much."""
        capacity = (len(sequence.blocks) + self.blocks.free) * self.blocks.block_size
        end = min(len(sequence.tokens), sequence.computed + budget, capacity)
        self.blocks.grow(sequence, end)
        chunks.append(Chunk(sequence, end))
        return end - sequence.computed

    def _room(self, sequence: Sequence) -> bool:
        """Have a block for the next token, at the cost of younger sequences if need be."""
        while not self.blocks.grow(sequence, sequence.computed + 1):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.blocks.release(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _admit(self, sequence: Sequence) -> bool:
        if self.guaranteed_no_evict:
            promised = sum(
                self.blocks.blocks_for(s.max_total_tokens) - len(s.blocks) for s in self.running
            )
            return self._match(sequence, self.blocks.free - promised, sequence.max_total_tokens)
        return self._match(sequence, self.blocks.free, len(sequence.tokens) + 1)

    def _match(self, sequence: Sequence, free: int, tokens: int) -> bool:
        """Take the known beginning of a sequence and say whether `tokens` fit; undo if not."""
        before = self.blocks.free
        self.blocks.match_prefix(sequence)
        free -= before - self.blocks.free
        if self.blocks.blocks_for(tokens) - len(sequence.blocks) <= free:
            return True
        self.blocks.release(sequence)
        return False
