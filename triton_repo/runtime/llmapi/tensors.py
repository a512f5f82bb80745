"""A request's tensors, read into Python's values; what is malformed is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy.typing as npt

from triton_repo.runtime.llmapi.refused import Refused

Tensors = Mapping[str, npt.NDArray[Any]]


def scalar(tensors: Tensors, name: str, default: Any = None) -> Any:
    """The one value of a tensor, `default` where it isn't given."""
    if name not in tensors:
        return default
    if tensors[name].size != 1:
        raise Refused(f"{name} must be one value, found shape {list(tensors[name].shape)}")
    return tensors[name].reshape(-1)[0].item()


def flag(tensors: Tensors, name: str) -> bool:
    """Whether a BOOL is given and true."""
    return bool(scalar(tensors, name, False))


def texts(tensors: Tensors, name: str) -> list[str]:
    """A tensor of strings; empty ones are nothing."""
    values = tensors[name].reshape(-1).tolist() if name in tensors else []
    try:
        found = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    except UnicodeDecodeError:
        raise Refused(f"{name} must be UTF-8") from None
    return [text for text in found if text]


def text(tensors: Tensors, name: str) -> str | None:
    """A tensor of one string, None where it isn't given or is empty."""
    return next(iter(texts(tensors, name)), None)


def words(tensors: Tensors, name: str) -> tuple[tuple[int, ...], ...]:
    """Words as [2, n]: token ids, and the exclusive end of each word in them, padded with -1."""
    if name not in tensors or tensors[name].size == 0:
        return ()
    table = tensors[name].reshape(-1, tensors[name].shape[-1])
    ends = [int(end) for end in table[-1] if end >= 0]
    if table.shape[0] != 2 or ends != sorted(ends) or (ends and ends[-1] > table.shape[1]):
        raise Refused(f"{name} must be two rows: token ids, and rising ends of words")
    found = (tuple(map(int, table[0][a:b])) for a, b in pairwise([0, *ends]))
    return tuple(word for word in found if word)
