"""Draft tokens: how many of a draft model's guesses the engine's own model takes.

The rules are those of TensorRT-LLM's externalDraftTokensKernels (speculative sampling,
arXiv 2302.01318): without draft logits a guess must be what would have been chosen; with them it
is taken when the model finds it likely enough next to what the draft model thought.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from builder.errors import RequestError
from triton_repo.executor.output import FinishReason, Logits
from triton_repo.executor.sampler import MOST_TOP_K, choose, nucleus_share, process
from triton_repo.executor.sequence import Sequence

Probabilities = NDArray[np.float64]


class Verified(NamedTuple):
    """The tokens that a sequence got: `accepted` guesses, and one of the model's own."""

    tokens: list[int]
    log_probs: list[float]
    accepted: int
    finish: FinishReason | None


def verify(rows: Logits, sequence: Sequence) -> Verified:
    """Give a sequence the tokens that follow from `rows`, float32[1 + drafts, vocab].

    Raises RequestError for what can't be chosen.
    """
    drafts = sequence.drafts[: len(rows) - 1]
    thoughts = sequence.request.draft_logits
    pick = None if thoughts is None else _Pick(sequence, thoughts)
    tokens, log_probs, accepted, finish = [], [], 0, None
    for index, row in enumerate(rows):
        guess = drafts[index] if index < len(drafts) else None
        if pick is not None and guess is not None:
            token, log_prob = pick(row, index, guess)
        else:
            token, log_prob, error = choose(row, sequence)
            if error is not None:
                raise RequestError(error)
        tokens.append(token)
        log_probs.append(log_prob)
        finish = sequence.append(token)
        if token != guess:
            break
        accepted += 1
        if finish is not None:
            break
    sequence.drafts = ()
    return Verified(tokens, log_probs, accepted, finish)


class _Pick:
    """Chooses a token by what model and draft model think of a guess, from a stream of its own."""

    def __init__(self, sequence: Sequence, draft_logits: Logits) -> None:
        request = sequence.request
        self._sequence = sequence
        self._draft_logits = draft_logits
        self._threshold = request.draft_acceptance_threshold
        seed = request.sampling.seed + sequence.index
        self._random = np.random.Generator(np.random.PCG64([seed, 1]))

    def __call__(self, row: Logits, index: int, guess: int) -> tuple[int, float]:
        target = _distribution(row, self._sequence)
        draft = _softmax(self._draft_logits[index])
        threshold = self._random.random() if self._threshold is None else self._threshold
        token = guess
        if target[guess] <= threshold * draft[guess]:
            left = np.maximum(target - draft, 0)
            cumulative = (left if left.any() else target).cumsum()
            drawn = self._random.random() * cumulative[-1]
            token = min(int(np.searchsorted(cumulative, drawn, side="right")), target.size - 1)
        return token, float(np.log(target[token])) if self._sequence.request.log_probs else 0.0


def _distribution(row: Logits, sequence: Sequence) -> Probabilities:
    """The probabilities of what the sampler may choose, float64[vocab]."""
    sampling = sequence.request.sampling
    logits = process(row, sequence)
    if not np.isfinite(logits.max()):
        raise RequestError("what the request forbids leaves no token")
    probabilities = _softmax(logits)
    order = np.argsort(-probabilities, kind="stable")
    kept = 1 if sampling.greedy else min(sampling.top_k, MOST_TOP_K) or order.size
    top_p = nucleus_share(sequence)
    if 0 < top_p < 1:
        cumulative = probabilities[order[:kept]].cumsum()
        kept = int(np.searchsorted(cumulative, top_p * cumulative[-1])) + 1
    probabilities[order[kept:]] = 0
    return probabilities / probabilities.sum()  # type: ignore[no-any-return]


def _softmax(logits: Logits) -> Probabilities:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()  # type: ignore[no-any-return]
