"""The elements of a piece: spans of bytes where nothing has to be computed, else small steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np

from builder.dtypes import NUMPY, Array, all_finite
from builder.errors import LimitError
from builder.families import Change
from builder.mapping import Piece
from builder.safetensors_file import ALL, BLOCK_BYTES, StoredTensor
from builder.safetensors_writer import Compute, Segment, Span
from builder.source import Tensor
from builder.source.model import Computed


def segments(
    pieces: Iterable[Piece], tensors: Mapping[str, Tensor], dtype: str
) -> Iterator[Segment]:
    """The pieces' elements one after the other in C order, cast where they are of another dtype."""
    for piece in pieces:
        tensor = tensors[piece.source]
        if _as_stored(piece, tensor, dtype) and isinstance(tensor, StoredTensor):
            yield from _spans(piece, tensor)
        else:
            yield from _steps(piece, tensor, dtype)
        if padding := piece.padding * math.prod(piece.shape[1:]):
            yield Compute(
                size_bytes=padding * NUMPY[dtype].itemsize,
                run=partial(np.zeros, padding, NUMPY[dtype]),
            )


def _as_stored(piece: Piece, tensor: Tensor, dtype: str) -> bool:
    same = tensor.dtype == dtype and piece.change is None
    return same and piece.columns == ALL and not piece.transposed


def _spans(piece: Piece, tensor: StoredTensor) -> Iterator[Span]:
    width = math.prod(piece.shape[1:]) * NUMPY[tensor.dtype].itemsize
    for rows in piece.rows:
        yield Span(
            tensor=tensor,
            begin=tensor.begin + rows.start * width,
            size_bytes=(rows.stop - rows.start) * width,
        )


def _steps(piece: Piece, tensor: Tensor, dtype: str) -> Iterator[Compute]:
    width = math.prod(piece.shape[1:]) * NUMPY[dtype].itemsize
    for rows in _batches(piece.rows, max(1, BLOCK_BYTES // max(width, _read_width(piece, tensor)))):
        count = sum(part.stop - part.start for part in rows)
        yield Compute(size_bytes=count * width, run=partial(_computed, piece, tensor, dtype, rows))


def _read_width(piece: Piece, tensor: Tensor) -> int:
    """Bytes that are read, or computed with, for a row of the piece."""
    whole = len(tensor.shape) > 1 and not piece.transposed
    stored = (tensor.shape[-1] if whole else 1) * NUMPY[tensor.dtype].itemsize
    return max(stored, tensor.row_bytes) if isinstance(tensor, Computed) else stored


def _batches(runs: Iterable[slice], limit: int) -> Iterator[list[slice]]:
    """The same rows in the same order, at most `limit` at a time."""
    batch: list[slice] = []
    room = limit
    for run in runs:
        start = run.start
        while start < run.stop:
            stop = min(run.stop, start + room)
            batch.append(slice(start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield batch
                batch, room = [], limit
    if batch:
        yield batch


def _computed(piece: Piece, tensor: Tensor, dtype: str, rows: list[slice]) -> Array:
    if piece.transposed:
        matrix = tensor.rows(ALL).T
        parts = [matrix[part, piece.columns] for part in rows]
    else:
        whole = (tensor.rows(part) for part in rows)
        parts = [part if piece.columns == ALL else part[:, piece.columns] for part in whole]
    taken = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return cast(piece.source, _changed(taken, piece.change), dtype)


def _changed(block: Array, change: Change | None) -> Array:
    if change is None:
        return block
    wide = block.astype(np.float32)
    if change is Change.PLUS_ONE:
        return wide + np.float32(1)
    lengths = np.sqrt(np.square(wide).sum(axis=-1, keepdims=True))
    result: Array = wide / np.maximum(lengths, np.float32(1e-12))
    return result


def cast(name: str, block: Array, dtype: str) -> Array:
    """The block as C-contiguous `dtype`. Raises LimitError for a number that float16 can't hold."""
    if block.dtype == NUMPY[dtype]:
        return np.ascontiguousarray(block)
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.ascontiguousarray(block.astype(NUMPY[dtype]))
    if dtype == "float16" and not all_finite(result) and all_finite(block):
        raise LimitError(
            f"the tensor {name} has numbers that float16 can't hold",
            found=f"up to {np.abs(block.astype(np.float32)).max():.0f}",
            do="convert with --dtype bfloat16 or float32",
        )
    return result
