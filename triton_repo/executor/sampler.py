"""From logits to tokens, with the order of operations of TensorRT-LLM's decoding layers.

The guide's mask first; then the embedding bias, the temperature, the repetition penalty, presence
and frequency (all three over prompt and answer), `min_tokens`, the bad words; then top-k, then
top-p. Sources: TensorRT-LLM's penaltyKernels.cu, banBadWords.cu, samplingTopKKernels.cu and
samplingTopPKernels.cu.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from builder.errors import RequestError
from triton_repo.executor.request import Request, SamplingParams
from triton_repo.executor.sequence import Sequence

Floats = NDArray[np.float32]
Tokens = NDArray[np.intp]

MOST_TOP_K = 1024
"""A larger top-k counts as this one, as in TensorRT-LLM's kernel."""
_LEAST = (np.float32(1e-2), np.float32(1e-4))
"""How likely next to the likeliest a token must be to be looked at first, and then."""


class Choice(NamedTuple):
    """A token and its log probability (0 unless asked for); `error` ends the sequence with it."""

    token: int
    log_prob: float
    error: str | None = None


class Candidates(NamedTuple):
    """Tokens that may be drawn, and their weights; a token's share of `total` is its probability.

    A draw spans the first `kept` of the weights' sum, which is where top-p cuts.
    """

    tokens: Tokens | None
    weights: Floats
    total: float
    kept: float


def sample(logits: Floats, sequences: list[Sequence]) -> list[Choice]:
    """The next token of each sequence, from its row of `logits` float32[S, vocab]."""
    if all(_plainly_greedy(sequence) for sequence in sequences):
        return [Choice(int(token), 0.0) for token in logits.argmax(axis=1)]
    return [choose(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]


def choose(row: Floats, sequence: Sequence) -> Choice:
    """The next token of one sequence, from its logits float32[vocab], which stay as they are."""
    if _plainly_greedy(sequence):
        return Choice(int(row.argmax()), 0.0)
    request = sequence.request
    try:
        logits = process(row, sequence)
    except RequestError as error:
        return Choice(max(request.end_id, 0), 0.0, str(error))
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):
        return Choice(max(request.end_id, 0), 0.0, _why_nothing_is_left(logits[best]))
    if request.sampling.greedy:
        return Choice(best, _greedy_log_prob(logits, best, request))
    found = _candidates(logits, best, request.sampling, nucleus_share(sequence))
    index = _pick(found, sequence.random.random())
    token = index if found.tokens is None else int(found.tokens[index])
    if not request.log_probs:
        return Choice(token, 0.0)
    normalized = request.normalize_log_probs and request.sampling.top_k
    whole = found.weights.sum(dtype=np.float64) if normalized else found.total
    return Choice(token, float(np.log(found.weights[index] / whole)))


def process(row: Floats, sequence: Sequence) -> Floats:
    """A row of logits, float32[vocab], with what the request and the tokens so far do to it.

    Raises RequestError when the guide has failed.
    """
    request, sampling = sequence.request, sequence.request.sampling
    logits = row.copy()
    if sequence.guide is not None:
        sequence.guide.mask(logits)
    if request.embedding_bias is not None:
        logits += request.embedding_bias
    if sampling.temperature != 1:
        logits /= np.float32(sampling.temperature)
    if sampling.penalised:
        _penalise(logits, sequence)
    if sequence.generated < sampling.min_tokens and request.end_id >= 0:
        logits[request.end_id] = -np.inf
    for word in request.bad_words:
        if _begun(word, sequence.tokens):
            logits[word[-1]] = -np.inf
    return logits


def _plainly_greedy(sequence: Sequence) -> bool:
    request, sampling = sequence.request, sequence.request.sampling
    held_back = sequence.generated < sampling.min_tokens and request.end_id >= 0
    return (
        sampling.greedy
        and not (sampling.penalised or held_back or request.log_probs or request.bad_words)
        and request.embedding_bias is None
        and sequence.guide is None
    )


def _penalise(logits: Floats, sequence: Sequence) -> None:
    sampling, seen_times = sequence.request.sampling, sequence.seen()
    count = len(seen_times)
    seen = np.fromiter(seen_times.keys(), np.int64, count)
    times = np.fromiter(seen_times.values(), np.int64, count)
    values = logits[seen]
    if sampling.repetition_penalty != 1:
        penalty = np.float32(sampling.repetition_penalty)
        values = np.where(values < 0, values * penalty, values / penalty)
    values -= np.float32(sampling.presence_penalty)
    values -= np.float32(sampling.frequency_penalty) * times.astype(np.float32)
    logits[seen] = values


def _begun(word: tuple[int, ...], tokens: list[int]) -> bool:
    """Whether the text so far, prompt and answer, ends with all of a word but its last token."""
    begin = len(word) - 1
    return begin == 0 or tuple(tokens[-begin:]) == word[:-1]


def nucleus_share(sequence: Sequence) -> float:
    """The nucleus of this step: it decays with each token since the start or the last reset."""
    sampling = sequence.request.sampling
    if sampling.top_k or (sampling.top_p_decay == 1 and sampling.top_p >= sampling.top_p_min):
        return sampling.top_p
    answer = sequence.tokens[sequence.prompt_len :][::-1]
    reset = sampling.top_p_reset_id
    since = answer.index(reset) if reset in answer else len(answer)
    if since == 0:
        return sampling.top_p
    return max(sampling.top_p * sampling.top_p_decay**since, sampling.top_p_min)


def _candidates(logits: Floats, best: int, sampling: SamplingParams, top_p: float) -> Candidates:
    weights = np.exp(logits - logits[best])
    total = float(weights.sum(dtype=np.float64))
    if sampling.top_k:
        order = _likeliest(weights, min(sampling.top_k, MOST_TOP_K))
        weights = weights[order]
        kept = float(weights.sum(dtype=np.float64)) * (top_p or 1)
        return Candidates(order, weights, total, kept)
    if top_p >= 1:
        return Candidates(None, weights, total, total)
    order = _sorted(weights, _nucleus(weights, total, total * top_p))
    return Candidates(order, weights[order], total, total * top_p)


def _nucleus(weights: Floats, total: float, kept: float) -> Tokens:
    """Tokens, all likelier than those left out, that together have at least `kept` of `total`.

    A few passes over the weights spare sorting most of them.
    """
    for least in _LEAST:
        tokens = np.flatnonzero(weights >= least)
        if weights[tokens].sum(dtype=np.float64) >= kept:
            return tokens
    # All tokens below this weight together have less than what is left out.
    return np.flatnonzero(weights >= np.float32((total - kept) / weights.size * 0.999))


def _likeliest(weights: Floats, count: int) -> Tokens:
    if count >= weights.size:
        return _sorted(weights, np.arange(weights.size))
    return _sorted(weights, np.sort(np.argpartition(weights, -count)[-count:]))


def _sorted(weights: Floats, tokens: Tokens) -> Tokens:
    """The tokens, likeliest first, the lower id first where equal."""
    return tokens[np.argsort(-weights[tokens], kind="stable")]


def _pick(candidates: Candidates, uniform: float) -> int:
    """Draw an index by the inverse of the cumulative distribution."""
    cumulative = candidates.weights.cumsum(dtype=np.float64)
    last = int(np.searchsorted(cumulative, candidates.kept * (1 - 1e-9)))
    index = int(np.searchsorted(cumulative, uniform * candidates.kept, side="right"))
    return min(index, last, cumulative.size - 1)


def _why_nothing_is_left(best: np.float32) -> str:
    if best == -np.inf:
        return "what the request forbids (bad words, min_tokens, embedding_bias) leaves no token"
    return f"the likeliest token's logit is {best}"


def _greedy_log_prob(logits: Floats, best: int, request: Request) -> float:
    """Normalised over the one token that top-k 1 keeps, it is 0, as in TensorRT-LLM."""
    if not request.log_probs or request.normalize_log_probs:
        return 0.0
    return -float(np.log(np.exp(logits - logits[best]).sum(dtype=np.float64)))
