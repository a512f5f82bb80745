"""What a quantization cost: two models' expectations of the same tokens, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from builder.errors import ModelError
from builder.progress import Progress, silent
from quantize.recording import FLOOR, Floats, Recording, counted, join, observe, record
from quantize.scorers.base import UNKNOWN, Predictions, Predictor, Scorer, Tokens

PERPLEXITY, KL, AGREEMENT = "perplexity", "kl", "agreement"
"""Names of figures in `Evaluation.missing`, the first with `source_` or `quantized_` before it."""

_STRETCHES = 64
"""Into how many stretches a sequence is cut for the profile, at most."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Of the numbers of all positions. `edges` [n + 1] and `counts` [n] are a histogram."""

    mean: float
    median: float
    p99: float
    max: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The positions `begin` to `end` - 1 of all sequences; position 0 predicts the second token."""

    begin: int
    end: int
    positions: int
    kl: float | None
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A comparison over the tokens of some sequences; logarithms are natural.

    Every sequence stands alone. A position is one that predicts a token: T-1 in a sequence of T.
    `source_perplexity`, `quantized_perplexity`: exp of the mean, over all positions of all
    sequences, of -ln p(token | those before it in its sequence), which each model normalises over
    its whole vocabulary. `kl`: KL(source || quantized) of the next token's distribution at each
    position, in nats. `agreement`: the part of `agreement_positions` (those where both are known)
    at which both find the same token likeliest. What couldn't be had is None; `missing` says why.
    """

    source: str
    source_kind: str
    quantized: str
    quantized_kind: str
    sequences: int
    tokens: int
    positions: int
    source_perplexity: float | None
    quantized_perplexity: float | None
    kl: Distribution | None
    agreement: float | None
    agreement_positions: int
    profile: tuple[Stretch, ...]
    missing: Mapping[str, str]

    @property
    def perplexity_increase(self) -> float | None:
        """By which part of the source's the perplexity grew: 0.02 is 2 %."""
        if self.source_perplexity is None or self.quantized_perplexity is None:
            return None
        return self.quantized_perplexity / self.source_perplexity - 1


def evaluate(
    source: Scorer | Predictor,
    quantized: Scorer | Predictor,
    sequences: Sequence[Tokens],
    progress: Progress = silent,
) -> Evaluation:
    """Compare two models on token ids int64[T] of held-out text. Raises as `record` does."""
    total = 2 * len(sequences)
    recording = record(source, sequences, progress=lambda done, _: progress(done, total))
    return compare(
        recording, quantized, progress=lambda done, _: progress(len(sequences) + done, total)
    )


def compare(
    source: Recording, quantized: Scorer | Predictor, progress: Progress = silent
) -> Evaluation:
    """Compare a model with what another said before. Raises as `record` does."""
    divergences: list[Floats] = []
    seen, begin = [], 0
    for tokens in counted(source.sequences, progress):
        if isinstance(quantized, Predictor):
            seen.append(quantized.predictions(tokens))
        else:
            visit = partial(_diverge, source, quantized.name, begin, divergences)
            seen.append(observe(quantized, tokens, visit))
        begin += len(tokens) - 1
    kl = np.concatenate(divergences) if divergences else None
    return _evaluation(source, quantized, join(seen), kl)


def _diverge(
    source: Recording,
    name: str,
    begin: int,
    divergences: list[Floats],
    rows: slice,
    log_probs: Floats,
) -> None:
    """Append KL(source || these log probabilities) of some positions of the sequence at `begin`."""
    if source.log_probs is None:
        return
    kept = source.log_probs[begin + rows.start : begin + rows.stop].astype(np.float64)
    if kept.shape != log_probs.shape:
        raise ModelError(
            f"{source.name} and {name} have vocabularies of different sizes",
            found=f"{kept.shape[1]} and {log_probs.shape[1]} logits",
            do="compare models of one tokenizer",
        )
    # what is kept was rounded: it must be a distribution again
    kept -= np.log(np.exp(kept).sum(axis=-1, keepdims=True))
    each = np.exp(kept) * (kept - np.maximum(log_probs, FLOOR))
    divergences.append(np.maximum(each.sum(axis=-1), 0))


def _evaluation(
    source: Recording, quantized: Scorer | Predictor, seen: Predictions, kl: Floats | None
) -> Evaluation:
    known = (source.top1 != UNKNOWN) & (seen.top1 != UNKNOWN)
    agreed = np.where(known, source.top1 == seen.top1, np.nan)
    missing = {
        **({} if kl is not None else {KL: "it takes the logits of both models"}),
        **({} if known.any() else {AGREEMENT: "no position has a likeliest token of both"}),
        **{_figure("source", figure): why for figure, why in source.missing.items()},
        **{_figure("quantized", figure): why for figure, why in seen.missing.items()},
    }
    return Evaluation(
        source=source.name,
        source_kind=source.kind,
        quantized=quantized.name,
        quantized_kind=quantized.kind,
        sequences=len(source.sequences),
        tokens=sum(map(len, source.sequences)),
        positions=len(known),
        source_perplexity=_perplexity(source.nll),
        quantized_perplexity=_perplexity(seen.nll),
        kl=None if kl is None else _distribution(kl),
        agreement=_mean(agreed),
        agreement_positions=int(known.sum()),
        profile=_profile(source.sequences, kl, agreed),
        missing=missing,
    )


def _figure(model: str, figure: str) -> str:
    return f"{model}_{figure}" if figure == PERPLEXITY else figure


def _perplexity(nll: Floats | None) -> float | None:
    return None if nll is None else float(np.exp(nll.mean()))


def _mean(numbers: Floats) -> float | None:
    """Of those that are known."""
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if len(known) else None


def _distribution(numbers: Floats) -> Distribution:
    edges = np.logspace(-8, 2, 51)
    counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
    return Distribution(
        mean=float(numbers.mean()),
        median=float(np.median(numbers)),
        p99=float(np.quantile(numbers, 0.99)),
        max=float(numbers.max()),
        edges=tuple(map(float, edges)),
        counts=tuple(map(int, counts)),
    )


def _profile(sequences: Sequence[Tokens], kl: Floats | None, agreed: Floats) -> tuple[Stretch, ...]:
    places = np.concatenate([np.arange(len(tokens) - 1) for tokens in sequences])
    longest = int(places.max()) + 1
    step = -(-longest // _STRETCHES)
    stretches = []
    for begin in range(0, longest, step):
        end = min(begin + step, longest)
        here = (places >= begin) & (places < end)
        stretches.append(
            Stretch(
                begin=begin,
                end=end,
                positions=int(here.sum()),
                kl=None if kl is None else _mean(kl[here]),
                agreement=_mean(agreed[here]),
            )
        )
    return tuple(stretches)
