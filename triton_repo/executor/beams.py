"""Beam search: which beams of a request go on with which tokens, and which are its answers.

The steps are those of TensorRT-LLM's beamSearchKernels, which follow Hugging Face's: the best
continuations of all beams together; of the `width` best those that end are answers, the best
others go on. Where the two differ (what an unfinished beam can still reach), it is as in
transformers 4.57.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builder.errors import RequestError
from triton_repo.executor.output import Beam, FinishReason, Logits
from triton_repo.executor.request import BeamParams, Request
from triton_repo.executor.sampler import process
from triton_repo.executor.sequence import Sequence


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A beam and a token to go on with."""

    beam: Sequence
    token: int
    log_prob: float


class BeamSearch:
    """The search of one request; it has `begun` once the first beams are chosen."""

    def __init__(self, request: Request, params: BeamParams) -> None:
        self._request = request
        self._params = params
        self._ended: list[tuple[float, Beam]] = []
        self.begun = False
        ends = {request.end_id, *(word[-1] for word in request.stop_words if word)}
        self._considered = params.width * (1 + len(ends))

    def advance(self, beams: list[Sequence]) -> list[Sequence]:
        """The beams that go on, each a branch of one of `beams`; none when the search is over.

        Every beam has its `row`, float32[vocab]. A branch has its new token, but no blocks:
        those of its parent (`parents`, in the same order) are to be forked.
        """
        self.begun = True
        self.parents: list[Sequence] = []
        going: list[Sequence] = []
        for rank, candidate in enumerate(self._candidates(beams)):
            branch, finish = _extend(candidate)
            if finish is None:
                going.append(branch)
                self.parents.append(candidate.beam)
            elif rank < self._params.width:
                self._end(branch, finish)
            if len(going) == self._params.width:
                break
        if not going and not self._ended:
            raise RequestError("no token is left that the beams may go on with")
        return [] if self._done(going) else going

    def answers(self) -> tuple[Beam, ...]:
        """The best answers, best first: as many as the request asks for."""
        return tuple(beam for _, beam in self._ended[: self._request.answer_count])

    def _candidates(self, beams: list[Sequence]) -> list[_Candidate]:
        """The best continuations of all beams, best first."""
        found: list[tuple[float, int, _Candidate]] = []
        for index, beam in enumerate(beams):
            if beam.row is None:
                continue
            log_probs = _log_softmax(process(beam.row, beam))
            for token in _best(log_probs, self._considered):
                log_prob = float(log_probs[token])
                if log_prob > -np.inf:
                    score = beam.cum_log_prob + log_prob + self._params.diversity_rate * index
                    found.append((-score, len(found), _Candidate(beam, int(token), log_prob)))
        found.sort()
        return [candidate for _, _, candidate in found[: self._considered]]

    def _end(self, beam: Sequence, finish: FinishReason) -> None:
        answer = Beam(
            token_ids=beam.tokens[beam.prompt_len :],
            log_probs=beam.log_probs,
            cum_log_prob=beam.cum_log_prob,
            finish=finish,
            generation_logits=np.stack(beam.rows) if beam.rows else None,
        )
        self._ended.append((self._normed(beam.cum_log_prob, beam.generated), answer))
        self._ended.sort(key=lambda ended: -ended[0])
        del self._ended[self._params.width :]

    def _done(self, going: list[Sequence]) -> bool:
        """Whether no beam that goes on can, or may, still become an answer."""
        if not going:
            return True
        if len(self._ended) < self._params.width:
            return False
        if self._params.early_stopping == 1:
            return True
        best = max(going, key=lambda beam: beam.cum_log_prob)
        length = best.generated
        if self._params.early_stopping != 0 and self._params.length_penalty > 0:
            length = best.max_total_tokens - best.prompt_len
        return self._normed(best.cum_log_prob, length) <= self._ended[-1][0]

    def _normed(self, cum_log_prob: float, length: int) -> float:
        return cum_log_prob / float(length**self._params.length_penalty)


def _extend(candidate: _Candidate) -> tuple[Sequence, FinishReason | None]:
    beam = candidate.beam
    branch = beam.branch()
    branch.log_probs.append(candidate.log_prob)
    branch.cum_log_prob += candidate.log_prob
    if beam.request.generation_logits and beam.row is not None:
        branch.rows.append(beam.row)
    return branch, branch.append(candidate.token)


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    highest = logits.max()
    if not np.isfinite(highest):
        return np.full(logits.size, -np.inf)
    shifted = logits.astype(np.float64) - highest
    return shifted - np.log(np.exp(shifted).sum())  # type: ignore[no-any-return]


def _best(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The indices of the `count` highest values, highest first, the lower index first if equal."""
    if count < values.size:
        best = np.sort(np.argpartition(values, -count)[-count:])
    else:
        best = np.arange(values.size)
    return best[np.argsort(-values[best], kind="stable")]
