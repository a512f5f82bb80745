"""The numbers in a response's tensors, out of Triton's bytes."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from server.backend.triton.messages import Tensor
from server.backend.triton.protobuf import MalformedError
from server.backend.triton.tensors import SWAP

_SIZES: Final = {"i": 4, "f": 4, "q": 8}
"""Bytes of a value, by array's letter for its type."""


def beams_of(message: bytes, tensors: Mapping[str, Tensor]) -> list[Sequence[int]]:
    """Token ids, a row per beam; what is beyond `sequence_length` is padding.

    Raises MalformedError for a length too few or too many.
    """
    tensor = tensors["output_ids"]
    count = tensor.shape[-2] if len(tensor.shape) > 1 else 1
    rows = rows_of(message, tensor, "i", count)
    lengths = _values(message, tensors.get("sequence_length"), "i")
    if not lengths:
        return rows
    if len(lengths) != len(rows):
        raise MalformedError(f"{len(lengths)} lengths for {len(rows)} sequences")
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def rows_of(message: bytes, tensor: Tensor | None, typecode: str, count: int) -> list[Any]:
    """A tensor's values, whatever its shape, in `count` rows of the same length.

    Raises MalformedError where they make no such rows.
    """
    values = _values(message, tensor, typecode)
    if count < 1 or len(values) % count:
        raise MalformedError(f"{len(values)} values in {count} rows")
    width = len(values) // count
    return [values[n * width : n * width + width] for n in range(count)]


def value_of(message: bytes, tensors: Mapping[str, Tensor], name: str) -> int | None:
    """The one value of a tensor of whole numbers; None where there is none."""
    tensor = tensors.get(name)
    if tensor is None:
        return None
    values = _values(message, tensor, "q" if tensor.datatype in ("INT64", "UINT64") else "i")
    return int(values[0]) if values else None


def array_of(typecode: str, raw: bytes) -> Any:
    """Little-endian bytes as an array."""
    data: Any = array(typecode, raw)
    if SWAP:
        data.byteswap()
    return data


def _values(message: bytes, tensor: Tensor | None, typecode: str) -> Any:
    if tensor is None:
        return ()
    start, end = tensor.span
    if (end - start) % _SIZES[typecode]:
        raise MalformedError(f"{tensor.name} of {end - start} bytes")
    return array_of(typecode, message[start:end])
