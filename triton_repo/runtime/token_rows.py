"""The engine's padded tensors of token ids as lists of ids."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

Array = npt.NDArray[Any]


class TokenRows(NamedTuple):
    """Ids of each row in turn of a tensor whose rows have `shape`; `fit` says that they could be
    told from the lengths given."""

    shape: tuple[int, ...]
    ids: list[list[int]]
    fit: bool


def token_rows(tokens: Array, lengths: Array) -> TokenRows:
    """The rows of `tokens` INT32 [batch, beams, length], of which `lengths` [batch, beams] count.

    Shorter beams are padded with -1.
    """
    if tokens.ndim != 3 or tokens.shape[:2] != lengths.shape:
        return TokenRows((), [], fit=False)
    flat = tokens.reshape(-1, tokens.shape[2])
    cut = [row[: max(n, 0)] for row, n in zip(flat, lengths.reshape(-1), strict=True)]
    return TokenRows(lengths.shape, [row[row >= 0].tolist() for row in cut], fit=True)
