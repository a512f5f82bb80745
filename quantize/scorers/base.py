"""What a model must be able to say to be compared: logits, or at least what it would say next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from builder.errors import LimitError

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]

UNKNOWN = -1
"""In place of a token id that wasn't asked for, or that an answer doesn't tell."""


@runtime_checkable
class Scorer(Protocol):
    """A model that gives its logits. `kind` says what runs it."""

    name: str
    kind: str

    def logits(self, tokens: Tokens) -> Logits:
        """Logits float32[T, vocabulary] after each of int64[T] tokens, of one sequence alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a model says of tokens 1 … T-1 of a sequence, each from those before it.

    `nll` float64[T-1]: minus the natural logarithm of the token's probability, None where the model
    doesn't tell. `top1` int64[T-1]: the likeliest token, or UNKNOWN. `missing` is why not: a figure
    of `Evaluation` → reason.
    """

    nll: npt.NDArray[np.float64] | None
    top1: Tokens
    missing: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Predictor(Protocol):
    """A model that doesn't give its logits."""

    name: str
    kind: str

    def predictions(self, tokens: Tokens) -> Predictions:
        """What it says of a sequence int64[T]."""


def require_length(name: str, tokens: Tokens, longest: int | None) -> None:
    """Raise LimitError for a sequence of more tokens than the model takes; None: any number."""
    if longest is not None and len(tokens) > longest:
        raise LimitError(
            f"a sequence is too long for {name}",
            found=f"{len(tokens)} tokens",
            do=f"give at most {longest}",
        )
