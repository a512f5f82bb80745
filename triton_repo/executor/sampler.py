"""From logits to tokens, with the order of operations of TensorRT-LLM's sampling layers.

Temperature first, then the repetition penalty (over prompt and answer), then presence and
frequency (over the answer), then top-k, then top-p. Log probabilities are those of the
distribution before top-k and top-p.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triton_repo.executor.sequence import Sequence

Floats = NDArray[np.float32]
Tokens = NDArray[np.intp]

_CANDIDATES = 1024
"""A nucleus is looked for among this many of the likeliest tokens first."""


class Choice(NamedTuple):
    """A token and its log probability (0 unless asked for)."""

    token: int
    log_prob: float


def sample(logits: Floats, sequences: list[Sequence]) -> list[Choice]:
    """The next token of each sequence, from its row of `logits` float32[S, vocab]."""
    likeliest = logits.argmax(axis=1)
    return [
        Choice(int(best), 0.0) if _plainly_greedy(sequence) else _choose(row, sequence)
        for best, row, sequence in zip(likeliest, logits, sequences, strict=True)
    ]


def _plainly_greedy(sequence: Sequence) -> bool:
    request = sequence.request
    sampling = request.sampling
    held_back = sequence.generated < sampling.min_tokens and request.end_id >= 0
    return sampling.greedy and not (sampling.penalised or held_back or request.log_probs)


def _choose(row: Floats, sequence: Sequence) -> Choice:
    logits = process(row, sequence)
    sampling = sequence.request.sampling
    if sampling.greedy:
        token = int(logits.argmax())
    else:
        token = _draw(logits, sampling.top_k, sampling.top_p, sequence.random.random())
    log_prob = float(logits[token] - _log_sum_exp(logits)) if sequence.request.log_probs else 0.0
    return Choice(token, log_prob)


def process(row: Floats, sequence: Sequence) -> Floats:
    """A row of logits, float32[vocab], with what the request and the tokens so far do to it."""
    sampling = sequence.request.sampling
    logits = row / np.float32(sampling.temperature)
    if sampling.penalised:
        _penalise(logits, sequence)
    if sequence.generated < sampling.min_tokens and sequence.request.end_id >= 0:
        logits[sequence.request.end_id] = -np.inf
    return logits


def _penalise(logits: Floats, sequence: Sequence) -> None:
    sampling = sequence.request.sampling
    answer = np.fromiter(sequence.counts.keys(), np.int64, len(sequence.counts))
    times = np.fromiter(sequence.counts.values(), np.float32, len(sequence.counts))
    if sampling.repetition_penalty != 1:
        seen = np.union1d(sequence.prompt_tokens, answer)
        penalty = np.float32(sampling.repetition_penalty)
        logits[seen] = np.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
    logits[answer] -= np.float32(sampling.presence_penalty)
    logits[answer] -= np.float32(sampling.frequency_penalty) * times


def _draw(logits: Floats, top_k: int, top_p: float, uniform: float) -> int:
    """Draw a token by the inverse of the cumulative distribution over the candidates."""
    if not top_k and not 0 < top_p < 1:
        return _pick(np.exp(logits - logits.max()), uniform)
    order, weights = _top_k(logits, top_k) if top_k else _nucleus(logits, top_p)
    if top_k and 0 < top_p < 1:
        order, weights = _cut(order, weights, top_p * weights.sum())
    return int(order[_pick(weights, uniform)])


def _top_k(logits: Floats, top_k: int) -> tuple[Tokens, Floats]:
    order = _best(logits, min(top_k, logits.size))
    return order, np.exp(logits[order] - logits[order[0]])


def _nucleus(logits: Floats, top_p: float) -> tuple[Tokens, Floats]:
    """The likeliest tokens that together reach `top_p`; looked for among ever more of them."""
    share = top_p * np.exp(logits - logits.max()).sum()
    count = _CANDIDATES
    while True:
        order, weights = _top_k(logits, count)
        if count >= logits.size or weights.sum() >= share:
            return _cut(order, weights, share)
        count *= 8


def _cut(order: Tokens, weights: Floats, share: float) -> tuple[Tokens, Floats]:
    size = int(np.searchsorted(weights.cumsum(), share)) + 1
    return order[:size], weights[:size]


def _best(logits: Floats, count: int) -> Tokens:
    """The `count` likeliest tokens, likeliest first, the lower id first where equal."""
    if count < logits.size:
        best = np.sort(np.argpartition(logits, -count)[-count:])
    else:
        best = np.arange(logits.size)
    return best[np.argsort(-logits[best], kind="stable")]


def _pick(weights: Floats, uniform: float) -> int:
    cumulative = weights.cumsum(dtype=np.float64)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(index, weights.size - 1)


def _log_sum_exp(logits: Floats) -> float:
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum(dtype=np.float64)))
