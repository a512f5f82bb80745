"""One prompt's input tensors, read as values; what is malformed is refused by the tensor's name."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import RequestError

Tensors = Mapping[str, NDArray[Any]]

MOST_WORDS = 1024
"""Stop or bad words of a request: each is looked for after every token."""


class Row:
    """The inputs of one prompt, each with a leading axis of 1, as Triton gives them.

    Every method raises RequestError with the tensor's name. A tensor without elements is as good
    as none.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    @property
    def names(self) -> list[str]:
        """Names of the tensors that hold something."""
        return [name for name in self._tensors if name in self]

    def __contains__(self, name: str) -> bool:
        """Whether a tensor holds something."""
        return name in self._tensors and self._tensors[name].size > 0

    def asks(self, name: str) -> bool:
        """Whether a tensor holds anything but zeros."""
        return name in self and bool(np.any(self._tensors[name]))

    def array(self, name: str, dimensions: int) -> NDArray[Any]:
        """A tensor without its leading axis."""
        if name not in self:
            raise RequestError(f"{name} is missing", param=name)
        value = self._tensors[name]
        if value.ndim != dimensions + 1 or value.shape[0] != 1:
            raise RequestError(
                f"{name} must have {dimensions} dimension{'s' * (dimensions > 1)} for each prompt",
                found=f"shape {list(value.shape)}",
                param=name,
            )
        row: NDArray[Any] = value[0]
        return row

    def scalar(self, name: str, default: Any = None) -> Any:
        """A tensor's one value; `default`, where it isn't None, stands for a missing tensor."""
        if default is not None and name not in self:
            return default
        if name not in self:
            raise RequestError(f"{name} is missing", param=name)
        value = self._tensors[name]
        if value.size != 1:
            raise RequestError(
                f"{name} must be one value for each prompt",
                found=f"shape {list(value.shape)}",
                param=name,
            )
        return value.reshape(-1)[0].item() if value.dtype != np.object_ else value.reshape(-1)[0]

    def flag(self, name: str, default: bool = False) -> bool:
        """A BOOL tensor's one value."""
        return bool(self.scalar(name, default))

    def vector(self, name: str) -> list[int]:
        """A tensor of whole numbers, [n]; [] where it is missing."""
        if name not in self:
            return []
        return self.array(name, 1).tolist()  # type: ignore[no-any-return]

    def text(self, name: str) -> str:
        """A STRING tensor's one value as text; "" where it is missing."""
        if name not in self:
            return ""
        value = self.scalar(name)
        try:
            return value.decode() if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError as error:
            raise RequestError(f"{name} is not UTF-8", found=str(error), param=name) from None

    def words(self, name: str, vocab_size: int) -> tuple[tuple[int, ...], ...]:
        """Words as [2, n]: token ids, and the exclusive end of each word in them, then -1."""
        if name not in self:
            return ()
        table = self.array(name, 2)
        if table.shape[0] != 2:
            raise RequestError(
                f"{name} must be two rows: token ids, and the ends of words in them",
                found=f"shape {list(table.shape)}",
                param=name,
            )
        ids, ends = table[0].tolist(), _ends(name, table[1])
        words = tuple(tuple(ids[a:b]) for a, b in pairwise([0, *ends]) if a < b)
        if len(words) > MOST_WORDS:
            raise RequestError(
                f"{name} must hold {MOST_WORDS} words at most", found=str(len(words)), param=name
            )
        for token in (token for word in words for token in word):
            if not 0 <= token < vocab_size:
                raise RequestError(
                    f"{name} must hold token ids in [0, {vocab_size})",
                    found=str(token),
                    param=name,
                )
        return words

    def floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A tensor of numbers of the given shape, as float32; -inf is a number, NaN isn't."""
        value = self.array(name, len(shape))
        if value.shape != shape:
            raise RequestError(
                f"{name} must have shape {[1, *shape]}",
                found=f"shape {[1, *value.shape]}",
                param=name,
            )
        numbers = value.astype(np.float32)
        if not np.all(numbers < np.inf):
            raise RequestError(f"{name} must hold numbers", found="NaN or infinity", param=name)
        return numbers


def rows(tensors: Tensors) -> list[Row]:
    """A Triton request's prompts, one for each row of `input_ids`.

    Raises RequestError when the tensors don't agree how many there are.
    """
    if "input_ids" not in tensors or tensors["input_ids"].ndim != 2:
        raise RequestError("input_ids is missing", param="input_ids")
    count = tensors["input_ids"].shape[0]
    for name, value in tensors.items():
        if value.ndim == 0 or value.shape[0] != count:
            raise RequestError(
                f"{name} must have a row for each of the {count} rows of input_ids",
                found=f"shape {list(value.shape)}",
                param=name,
            )
    return [Row({name: value[i : i + 1] for name, value in tensors.items()}) for i in range(count)]


def _ends(name: str, row: NDArray[Any]) -> list[int]:
    """The ends before the padding: rising, within the ids; then -1 alone."""
    ends: list[int] = row.tolist()
    count = ends.index(-1) if -1 in ends else len(ends)
    found = ends[:count]
    rising = all(a < b for a, b in pairwise(found)) and (not found or found[0] >= 0)
    if not rising or set(ends[count:]) - {-1} or (found and found[-1] > len(ends)):
        raise RequestError(
            f"{name} must have rising ends of words in its second row, then -1",
            found=str(ends[:20]),
            param=name,
        )
    return found
