"""What a model said of some tokens, kept until the other model has been asked.

The two needn't be in memory at once, and may be one object that is quantized in between. Log
probabilities go to a file without a name, as float16, which the comparison normalises again: so
they are a distribution p' that differs from p by factors 1 + e, |e| <= 2^-11 |ln p|. That changes
KL(p || q) by less than s (2 KL)^1/2 + s^2, where s, about 0.001, is the deviation of e under p.
KL of a model and itself is then s^2 / 2, below 1e-6 nats.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builder.artifact import require_space, writing
from builder.errors import LimitError, ModelError
from builder.progress import Progress, silent
from quantize.scorers.base import Logits, Predictions, Predictor, Scorer, Tokens

Floats = npt.NDArray[np.float64]

FLOOR = float(np.finfo(np.float16).min)
"""The least log probability: what is smaller, as of a masked token, has probability 0 anyhow."""

_BLOCK = 1 << 21
"""Numbers that are worked on at once: 16 MiB in float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A model's predictions of N positions: of each sequence, all tokens but the first.

    `nll` float64[N] and `top1` int64[N] as in `Predictions`. `log_probs` float16[N, vocabulary] is
    on disk, which is freed with the object; None of a model that doesn't give its logits.
    """

    name: str
    kind: str
    sequences: tuple[Tokens, ...]
    nll: Floats | None
    top1: Tokens
    log_probs: npt.NDArray[np.float16] | None
    missing: Mapping[str, str]

    @property
    def spilled_bytes(self) -> int:
        """What it takes of the disk."""
        return 0 if self.log_probs is None else self.log_probs.nbytes


def record(
    scorer: Scorer | Predictor,
    sequences: Sequence[Tokens],
    *,
    place: Path | None = None,
    progress: Progress = silent,
) -> Recording:
    """Ask a model about sequences int64[T], each by itself; `progress` counts sequences.

    `place` is where the file goes, by default the system's temporary folder; it takes two bytes for
    each position and entry of the vocabulary (4096 tokens: 0.4 GB for a vocabulary of 49k, 1.2 GB
    for 152k). Raises LimitError for sequences of which nothing can be predicted, ModelError for
    logits that aren't numbers, OutputError when the disk is too small.
    """
    check(sequences)
    if isinstance(scorer, Predictor):
        seen = [scorer.predictions(tokens) for tokens in counted(sequences, progress)]
        return _recording(scorer, sequences, seen, None)
    place = place or Path(tempfile.gettempdir())
    count = sum(len(tokens) - 1 for tokens in sequences)
    seen = []
    with writing(place), tempfile.TemporaryFile(dir=place) as file:

        def keep(rows: slice, log_probs: Floats) -> None:
            if not file.tell():
                require_space(place, 2 * count * log_probs.shape[1])
            file.write(np.maximum(log_probs, FLOOR).astype(np.float16).data)

        for tokens in counted(sequences, progress):
            seen.append(observe(scorer, tokens, keep))
        file.flush()
        kept = np.memmap(file, np.float16, "r").reshape(count, -1)
    return _recording(scorer, sequences, seen, kept)


def check(sequences: Sequence[Tokens]) -> None:
    """Raise LimitError unless every sequence has something to predict."""
    if not sequences:
        raise LimitError(
            "there is no text to compare the models on",
            found="no sequence",
            do="give a longer text",
        )
    if (shortest := min(map(len, sequences))) < 2:
        raise LimitError(
            "a sequence is too short to predict a token of",
            found=f"{shortest} token{'s' * (shortest != 1)}",
            do="give sequences of at least 2",
        )


def counted(sequences: Sequence[Tokens], progress: Progress) -> Iterator[Tokens]:
    """The sequences; tells `progress` of each that is done."""
    for index, tokens in enumerate(sequences):
        yield tokens
        progress(index + 1, len(sequences))


def observe(scorer: Scorer, tokens: Tokens, visit: Callable[[slice, Floats], None]) -> Predictions:
    """A scorer's predictions of a sequence int64[T].

    `visit` gets, block by block, which of the T-1 positions it is and their log probabilities
    float64[rows, vocabulary]. Raises ModelError for logits that aren't numbers or don't fit.
    """
    logits, wanted = scorer.logits(tokens), tokens[1:]
    if logits.ndim != 2 or len(logits) != len(tokens) or logits.shape[1] <= tokens.max():
        found = f"logits {list(logits.shape)} for {len(tokens)} tokens up to {tokens.max()}"
        raise ModelError(
            f"{scorer.name} doesn't fit the tokens", found=found, do="use its own tokenizer"
        )
    nll = np.empty(len(wanted))
    step = max(1, _BLOCK // logits.shape[1])
    for start in range(0, len(wanted), step):
        rows = slice(start, min(start + step, len(wanted)))
        log_probs = _log_softmax(scorer.name, logits[rows], start)
        nll[rows] = -log_probs[np.arange(len(log_probs)), wanted[rows]]
        visit(rows, log_probs)
    return Predictions(nll=nll, top1=logits[:-1].argmax(axis=-1).astype(np.int64))


def _log_softmax(name: str, logits: Logits, position: int) -> Floats:
    largest = logits.max(axis=-1, keepdims=True)
    if not (finite := np.isfinite(largest)).all():
        row = int(np.argmin(finite))
        raise ModelError(
            f"{name} computes logits that are not numbers",
            found=f"{largest[row, 0]} at position {position + row}",
            do="look for NaN and infinity in its weights and scales",
        )
    shifted = logits.astype(np.float64) - largest
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    result: Floats = shifted
    return result


def _recording(
    scorer: Scorer | Predictor,
    sequences: Sequence[Tokens],
    seen: Sequence[Predictions],
    log_probs: npt.NDArray[np.float16] | None,
) -> Recording:
    joined = join(seen)
    return Recording(
        name=scorer.name,
        kind=scorer.kind,
        sequences=tuple(sequences),
        nll=joined.nll,
        top1=joined.top1,
        log_probs=log_probs,
        missing=joined.missing,
    )


def join(seen: Sequence[Predictions]) -> Predictions:
    """The predictions of sequences, one after the other."""
    told = [each.nll for each in seen if each.nll is not None]
    return Predictions(
        nll=np.concatenate(told) if len(told) == len(seen) else None,
        top1=np.concatenate([each.top1 for each in seen]),
        missing={figure: why for each in seen for figure, why in each.missing.items()},
    )
