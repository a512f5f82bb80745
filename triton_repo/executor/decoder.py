"""From the logits of a step to its requests' outputs."""

from __future__ import annotations

import numpy as np

from triton_repo.executor.beams import BeamSearch
from triton_repo.executor.group import Group
from triton_repo.executor.output import FinishReason, Logits, Output
from triton_repo.executor.sampler import Choice, choose, sample
from triton_repo.executor.scheduler import Chunk, Scheduler
from triton_repo.executor.sequence import Sequence
from triton_repo.executor.speculation import verify

_Next = tuple[Group, Sequence, int]
"""A sequence that gets its next token, and from which row of the step's logits."""


class Decoder:
    """Chooses tokens, ends what is over. A request that can't go on fails alone."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def advance(self, chunks: list[Chunk], logits: Logits) -> None:
        """Give the computed `chunks` what follows from their `logits`, float32[rows, vocab]."""
        ready: list[_Next] = []
        begin = 0
        for group, sequence, end, first_row in chunks:
            rows = end - first_row
            if rows and group.plain:
                last = begin + rows - 1
                ready.extend([(group, one, last) for one in group.chosen_with(sequence)])
            elif rows:
                self._guard(group, sequence, first_row, logits[begin : begin + rows])
            begin += rows
        if ready:
            self._sample(ready, logits)

    def end(self, group: Group, reason: FinishReason, error: str | None = None) -> None:
        """End a request as it is, with an output for each sequence that isn't over."""
        unfinished = [*group.sequences]
        self._scheduler.remove(group)
        for sequence in unfinished if group.search is None else unfinished[:1]:
            final = sequence is unfinished[-1] or group.search is not None
            group.sink(
                Output([], [], reason, error, sequence.index, final=final, perf=group.perf())
            )

    def _sample(self, ready: list[_Next], logits: Logits) -> None:
        rows = [row for _, _, row in ready]
        chosen_from = logits if rows == [*range(len(logits))] else logits[rows]
        sequences = [sequence for _, sequence, _ in ready]
        try:
            choices = sample(chosen_from, sequences)
        except Exception:  # noqa: BLE001 - whose fault it is shows when each is asked alone
            choices = list(map(_choose_alone, chosen_from, sequences))
        for (group, sequence, row), choice in zip(ready, choices, strict=True):
            if group.over:
                continue
            if choice.error is not None:
                self.end(group, FinishReason.ERROR, choice.error)
                continue
            try:
                finish = sequence.append(choice.token)
            except Exception as error:  # noqa: BLE001 - a guide's fault is its request's alone
                self.end(group, FinishReason.ERROR, str(error))
                continue
            log_probs = [choice.log_prob] if group.request.log_probs else []
            kept = logits[row : row + 1].copy() if group.request.generation_logits else None
            self._emit(group, sequence, [choice.token], log_probs, finish, kept)

    def _guard(self, group: Group, sequence: Sequence, first_row: int, rows: Logits) -> None:
        try:
            self._decode(group, sequence, first_row, rows)
        except Exception as error:  # noqa: BLE001 - one request's fault isn't its batch's
            self.end(group, FinishReason.ERROR, str(error))

    def _decode(self, group: Group, sequence: Sequence, first_row: int, rows: Logits) -> None:
        """What isn't plain sampling: logits of the prompt, drafts, beams."""
        if first_row < group.prompt_len and group.request.context_logits:
            group.gather_context(rows[: group.prompt_len - first_row])
        if not sequence.decoded:
            return
        rows = rows[len(sequence.tokens) - 1 - first_row :]
        if group.search:
            sequence.row = rows[-1].copy()
            if all(beam.row is not None for beam in group.sequences):
                self._search(group, group.search)
            return
        group.plain = True
        for one in group.chosen_with(sequence):
            self._verify(group, one, rows)

    def _verify(self, group: Group, sequence: Sequence, rows: Logits) -> None:
        tokens, log_probs, accepted, finish = verify(rows, sequence)
        sequence.computed += accepted
        self._scheduler.blocks.trim(sequence)
        group.draft_tokens += len(rows) - 1
        group.accepted_draft_tokens += accepted
        kept = rows[: len(tokens)].copy() if group.request.generation_logits else None
        log_probs = log_probs if group.request.log_probs else []
        self._emit(group, sequence, tokens, log_probs, finish, kept)

    def _search(self, group: Group, search: BeamSearch) -> None:
        """Let the beams go on; with the last of them the answers are there."""
        blocks = self._scheduler.blocks
        group.token_came()
        going = search.advance(group.sequences)
        if not going:
            self._scheduler.remove(group)
            beams = search.answers()
            context, perf = group.take_context(), group.perf()
            best = beams[0].finish
            group.sink(
                Output([], [], best, final=True, context_logits=context, beams=beams, perf=perf)
            )
            return
        for parent, branch in zip(search.parents, going, strict=True):
            blocks.fork(parent, branch, parent.computed)
        for parent in group.sequences:
            blocks.release(parent)
        group.sequences = going

    def _emit(
        self,
        group: Group,
        sequence: Sequence,
        tokens: list[int],
        log_probs: list[float],
        finish: FinishReason | None,
        rows: Logits | None,
    ) -> None:
        first = not group.first_token_ns
        group.token_came()
        if finish is not None:
            self._scheduler.drop(group, sequence)
        perf = group.perf() if first or finish is not None else None
        group.sink(
            Output(
                tokens,
                log_probs,
                finish,
                None,
                sequence.index,
                group.over,
                rows,
                group.take_context(),
                None,
                perf,
            )
        )


def _choose_alone(row: Logits, sequence: Sequence) -> Choice:
    try:
        return choose(np.asarray(row), sequence)
    except Exception as error:  # noqa: BLE001 - told to the request that has it
        return Choice(0, 0.0, str(error))
