"""A request on its way: the sequences that answer it, which run, wait and end together."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from triton_repo.executor.beams import BeamSearch
from triton_repo.executor.output import Logits, Output, Perf
from triton_repo.executor.request import Request
from triton_repo.executor.sequence import Sequence

Sink = Callable[[Output], None]


class Group:
    """A request's sequences: one, or `num_return_sequences`, or the beams of a `search`.

    The first computes the prompt; the others fork from it then (`forked`). The group is
    `running` while it has a place in the batch and `over` when its last output is out.
    """

    def __init__(self, request: Request, max_total_tokens: int, sink: Sink) -> None:
        self.request = request
        self.sink = sink
        self.search: BeamSearch | None = None
        if request.beams is not None and request.beam_width > 1:
            self.search = BeamSearch(request, request.beams)
        count = 1 if self.search else request.answer_count
        self.sequences = [Sequence(request, max_total_tokens, index) for index in range(count)]
        self.prompt_len = len(request.input_ids)
        self.max_total_tokens = self.sequences[0].max_total_tokens
        self.forked = count == 1 and self.search is None
        self.running = False
        self.over = False
        self.plain = not (self.search or request.context_logits or request.draft_ids)
        self.context_rows = 0
        self._context: list[Logits] = []
        self.arrived_ns = time.monotonic_ns()
        self.scheduled_ns = self.first_token_ns = self.last_token_ns = 0
        self._usage = self.sequences[0].usage
        for sequence in self.sequences:
            sequence.usage = self._usage
        self.draft_tokens = self.accepted_draft_tokens = 0

    @property
    def places(self) -> int:
        """How many places of the batch it takes; a beam search takes one, as in TensorRT-LLM."""
        return 1 if self.search else len(self.sequences)

    def due(self) -> list[Sequence]:
        """The sequences that the next step may compute; only the first until they have forked."""
        if self.search:
            return [one for one in self.sequences if one.row is None][: None if self.forked else 1]
        return self.sequences if self.forked else self.sequences[:1]

    def chosen_with(self, sequence: Sequence) -> list[Sequence]:
        """The sequences that take their next token from this one's logits: the first, for all."""
        first = len(sequence.tokens) == self.prompt_len
        return [*self.sequences] if first else [sequence]

    def most_blocks(self, block_size: int) -> int:
        """How many blocks it can come to hold; its sequences share those that the prompt fills."""
        shared = self.prompt_len // block_size
        own = -(-self.max_total_tokens // block_size) - shared
        return shared + own * (self.request.beam_width if self.search else len(self.sequences))

    def next_blocks(self, block_size: int) -> int:
        """How many blocks it needs to give each sequence its next token."""
        shared = self.prompt_len // block_size
        sizes = [len(one.tokens) for one in self.sequences]
        if self.search and not self.search.begun:
            sizes *= self.request.beam_width
        return shared + sum(-(-(size + 1) // block_size) - shared for size in sizes)

    def gather_context(self, rows: Logits) -> None:
        """Keep the next rows of the prompt's logits, float32[n, vocab]."""
        self._context.append(rows.copy())
        self.context_rows += len(rows)

    def take_context(self) -> Logits | None:
        """The prompt's logits, float32[prompt, vocab], once."""
        if not self._context:
            return None
        parts, self._context = self._context, []
        return np.concatenate(parts)

    def token_came(self) -> None:
        """Note the time of the newest token."""
        self.last_token_ns = time.monotonic_ns()
        if not self.first_token_ns:
            self.first_token_ns = self.last_token_ns

    def perf(self) -> Perf:
        """What it took so far."""
        return Perf(
            arrival_time_ns=self.arrived_ns,
            first_scheduled_time_ns=self.scheduled_ns,
            first_token_time_ns=self.first_token_ns,
            last_token_time_ns=self.last_token_ns,
            kv_cache_alloc_new_blocks=self._usage.new,
            kv_cache_reused_blocks=self._usage.reused,
            kv_cache_alloc_total_blocks=self._usage.total,
            total_draft_tokens=self.draft_tokens,
            total_accepted_draft_tokens=self.accepted_draft_tokens,
        )
