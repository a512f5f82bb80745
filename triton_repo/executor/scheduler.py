"""Which tokens of which sequences the next step computes: in-flight batching in two phases."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from triton_repo.executor.blocks import BlockManager
from triton_repo.executor.group import Group
from triton_repo.executor.sequence import Sequence


class Chunk(NamedTuple):
    """The tokens [sequence.computed, end) of a sequence, to be computed in one step.

    The logits of those from `first_row` on are wanted. Ends beyond the sequence's tokens are
    draft tokens.
    """

    group: Group
    sequence: Sequence
    end: int
    first_row: int


class Scheduler:
    """First come, first served, at most `max_batch_size` sequences and `max_num_tokens` a step.

    Answers go on before prompts begin; prompts are computed in chunks of what is left of the
    step, or whole where `chunked_context` is off. `guaranteed_no_evict` admits a request only
    when its longest possible answers fit; without it (upstream's `max_utilization`) the youngest
    request gives up its blocks when they run out, and is computed again later.
    """

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_batch_size: int,
        max_num_tokens: int,
        guaranteed_no_evict: bool = False,
        chunked_context: bool = True,
    ) -> None:
        self.blocks = blocks
        self.max_batch_size = max_batch_size
        self.max_num_tokens = max_num_tokens
        self.guaranteed_no_evict = guaranteed_no_evict
        self.chunked_context = chunked_context
        self.waiting: deque[Group] = deque()
        self.running: list[Group] = []
        self.queued = 0
        self.paused = 0
        self.preemptions = 0
        self.reused_blocks = 0
        self._refused: tuple[Group, int] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is running or waiting."""
        return bool(self.running or self.waiting)

    def add(self, group: Group) -> None:
        """Queue a new request."""
        self.waiting.append(group)
        self.queued += group.places

    def remove(self, group: Group) -> None:
        """Forget a request that is over or cancelled; its blocks are free at once."""
        if group.running:
            self.running.remove(group)
        else:
            self.waiting.remove(group)
        if not group.scheduled_ns:
            self.queued -= group.places
        elif not group.running:
            self.paused -= 1
        for sequence in group.sequences:
            self.blocks.release(sequence)
        group.running, group.over = False, True
        self._refused = None

    def drop(self, group: Group, sequence: Sequence) -> None:
        """Forget one sequence of a request; the request too if it was the last."""
        if len(group.sequences) == 1:
            self.remove(group)
            return
        group.sequences.remove(sequence)
        self.blocks.release(sequence)

    def schedule(self) -> list[Chunk]:
        """The next step; empty when there is nothing to do."""
        chunks: list[Chunk] = []
        budget = self.max_num_tokens
        for group in [*self.running]:
            # A prompt begun is the youngest request, so the answers before it had their tokens;
            # only the youngest are preempted, so nothing older in `chunks` is.
            if not (budget and group.running):
                break
            for sequence in group.due():
                if not (budget and self._room(group, sequence)):
                    break
                budget -= self._take(chunks, group, sequence, budget)
            if not group.running:
                chunks = [chunk for chunk in chunks if chunk.group is not group]
        while budget and self.waiting and self._admit(self.waiting[0], budget):
            group = self.waiting.popleft()
            self.running.append(group)
            budget -= self._take(chunks, group, group.sequences[0], budget)
        return chunks

    def settle(self, chunks: list[Chunk]) -> None:
        """Note that a step has been computed. Drafts don't count until they are accepted."""
        for group, sequence, end, _ in chunks:
            sequence.computed = min(end, len(sequence.tokens))
            self.blocks.publish(sequence)
            if not group.forked and sequence.computed >= group.prompt_len:
                self._fork(group, sequence, end)

    def _fork(self, group: Group, first: Sequence, end: int) -> None:
        """The prompt is there: let the other sequences go on from it."""
        for sequence in group.sequences:
            if sequence is not first:
                held = end if sequence.drafts else group.prompt_len
                self.blocks.fork(first, sequence, held)
                sequence.computed = group.prompt_len
        group.forked = True

    def _take(self, chunks: list[Chunk], group: Group, sequence: Sequence, budget: int) -> int:
        """Schedule as much of a sequence as budget and free blocks allow; say how much."""
        size, start = len(sequence.tokens), sequence.computed
        capacity = (len(sequence.blocks) + self.blocks.free) * self.blocks.block_size
        end = min(size + len(sequence.drafts), start + budget, capacity)
        self.blocks.grow(sequence, end)
        first_row = min(size - 1, end)
        if (
            not group.plain
            and group.context_rows < group.prompt_len
            and group.request.context_logits
        ):
            first_row = min(max(start, group.context_rows), end)
        chunks.append(Chunk(group, sequence, end, first_row))
        return end - start

    def _room(self, group: Group, sequence: Sequence) -> bool:
        """Have a block for the next token, at the cost of younger requests if need be."""
        while not self.blocks.grow(sequence, sequence.computed + 1):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is group:
                return False
        return True

    def _preempt(self, group: Group) -> None:
        self.running.remove(group)
        group.running = False
        group.forked = group.search is None and len(group.sequences) == 1
        for sequence in group.sequences:
            sequence.row = None
            self.blocks.release(sequence)
        self.waiting.appendleft(group)
        self.paused += 1
        self.preemptions += 1

    def _admit(self, group: Group, budget: int) -> bool:
        """Whether a request can start now; it has the known beginning of its prompt then."""
        places = sum(one.places for one in self.running)
        if places + group.places > self.max_batch_size:
            return False
        if self._refused == (group, self.blocks.changes):
            # nothing has changed: a long prompt's beginning isn't looked up at every step
            return False
        first, size = group.sequences[0], self.blocks.block_size
        self.blocks.match_prefix(first)
        free = self.blocks.free
        needed = group.next_blocks(size)
        if self.guaranteed_no_evict:
            free -= sum(one.most_blocks(size) - _held(one) for one in self.running)
            needed = group.most_blocks(size)
        no_room = needed - len(first.blocks) > free
        if no_room or self._too_long(first, budget):
            self.blocks.release(first)
            self._refused = (group, self.blocks.changes) if no_room else None
            return False
        self._started(group)
        return True

    def _too_long(self, first: Sequence, budget: int) -> bool:
        """Whether a prompt that must be computed whole has to wait for a step with more room."""
        size = len(first.tokens) - first.computed
        return not self.chunked_context and budget < size <= self.max_num_tokens

    def _started(self, group: Group) -> None:
        group.running = True
        reused = len(group.sequences[0].blocks)
        group.sequences[0].usage.reused += reused
        self.reused_blocks += reused
        if not group.scheduled_ns:
            group.scheduled_ns = time.monotonic_ns()
            self.queued -= group.places
        else:
            self.paused -= 1


def _held(group: Group) -> int:
    """How many blocks its sequences hold between them."""
    if len(group.sequences) == 1:
        return len(group.sequences[0].blocks)
    return len({block for sequence in group.sequences for block in sequence.blocks})
