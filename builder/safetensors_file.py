"""Our own reader and writer of safetensors files, because a converter needs byte ranges.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a
JSON header `{name: {dtype, shape, data_offsets: [begin, end]}}`, then the tensors' bytes, without
holes. Nothing of a tensor is read before it is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from builder.dtypes import NUMPY, SAFETENSORS_CODES, Array
from builder.errors import CorruptFileError
from builder.stored_file import StoredFile

HEADER_LIMIT_BYTES = 100_000_000
"""The reference implementation's limit; a larger length means another kind of file."""

BLOCK_BYTES = 1 << 20
"""How much of a tensor is handed on at once: small enough for a processor's cache."""

ALL = slice(None)
"""Every row of a tensor."""

_AGAIN = "download or save the file again"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTensor:
    """One tensor of a mapped file; nothing is read until it is asked for."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Offset of the first byte in the file."""
    file: StoredFile

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * NUMPY[self.dtype].itemsize

    def data(self) -> memoryview:
        """The raw little-endian bytes in the map: zero-copy and read-only."""
        return memoryview(self.file.map)[self.begin : self.begin + self.nbytes]

    def numpy(self) -> Array:
        """A read-only view, shape `shape`, dtype `NUMPY[dtype]` (ml_dtypes for bfloat16)."""
        return np.frombuffer(self.data(), NUMPY[self.dtype]).reshape(self.shape)

    def rows(self, rows: slice = ALL) -> Array:
        """Some rows of the matrix of the last dimension, or a vector's elements, read into memory.

        All of them are a read-only view.
        """
        width = self.shape[-1] if len(self.shape) > 1 else 1
        shape = (-1, width) if len(self.shape) > 1 else (-1,)
        if rows == ALL:
            return self.numpy().reshape(shape)
        first, last, _ = rows.indices(math.prod(self.shape) // width if width else 0)
        return self._elements(first * width, last * width).reshape(shape)

    def blocks(self, rows: slice = ALL) -> Iterator[Array]:
        """Consecutive flat arrays of up to BLOCK_BYTES of the given rows (of dimension 0)."""
        step = BLOCK_BYTES // NUMPY[self.dtype].itemsize
        row = math.prod(self.shape[1:])
        first, last, _ = rows.indices(self.shape[0] if self.shape else 1)
        for start in range(first * row, last * row, step):
            yield self._elements(start, min(start + step, last * row))

    def _elements(self, start: int, stop: int) -> Array:
        size = NUMPY[self.dtype].itemsize
        content = self.file.read(self.begin + start * size, (stop - start) * size)
        return content.view(NUMPY[self.dtype])


def read(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file in the order of their bytes.

    Raises CorruptFileError, naming the file and, if any, the tensor, for everything that
    doesn't fit: a truncated file, a foreign header, sizes or offsets that don't add up.
    """
    if path.is_file() and (size := path.stat().st_size) < 10:
        _corrupt(path, f"{size} bytes")
    file = StoredFile(path)
    start, header = _header(file)
    header.pop("__metadata__", None)
    tensors = [_tensor(file, name, entry, start) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.nbytes))
    _check_layout(path, tensors, start, len(file.map))
    return {tensor.name: tensor for tensor in tensors}


def _header(file: StoredFile) -> tuple[int, dict[str, Any]]:
    path, mapped = file.path, file.map
    length = int.from_bytes(mapped[:8], "little")
    if length > HEADER_LIMIT_BYTES:
        _corrupt(path, f"a header length of {length} bytes")
    if 8 + length > len(mapped):
        _corrupt(path, f"{len(mapped)} bytes where the header alone takes {8 + length}")
    try:
        header = json.loads(mapped[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _corrupt(path, f"a header that isn't JSON ({error})")
    if not isinstance(header, dict):
        _corrupt(path, "a header that isn't a JSON object")
    return 8 + length, header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(fields := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return fields


def _tensor(file: StoredFile, name: str, entry: Any, start: int) -> StoredTensor:
    path = file.path
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError):
        _corrupt(path, "no dtype, shape and data_offsets", name)
    if not all(type(number) is int and number >= 0 for number in numbers):
        _corrupt(path, f"shape {shape}, data_offsets [{begin}, {end}]", name)
    if code not in SAFETENSORS_CODES:
        _corrupt(path, f"dtype {code!r}", name, do=f"known are {', '.join(SAFETENSORS_CODES)}")
    tensor = StoredTensor(
        name=name,
        dtype=SAFETENSORS_CODES[code],
        shape=tuple(shape),
        begin=start + begin,
        file=file,
    )
    if end - begin != tensor.nbytes:
        _corrupt(path, f"{end - begin} bytes for {code} of shape {shape}", name)
    return tensor


def _check_layout(path: Path, tensors: list[StoredTensor], start: int, size: int) -> None:
    """The tensors must follow one another without overlap or hole up to the end of the file."""
    position = start
    for tensor in tensors:
        if tensor.begin + tensor.nbytes > size:
            found = f"{size} bytes, {tensor.begin + tensor.nbytes} needed"
            _corrupt(path, found, tensor.name, what="is truncated")
        if tensor.begin != position:
            kind = "overlaps the one before" if tensor.begin < position else "leaves a hole before"
            _corrupt(path, f"a tensor that {kind}", tensor.name)
        position += tensor.nbytes
    if position != size:
        _corrupt(path, f"{size - position} bytes after the last tensor")


def _corrupt(
    path: Path,
    found: str,
    tensor: str | None = None,
    *,
    what: str = "is not a valid safetensors file",
    do: str = _AGAIN,
) -> NoReturn:
    where = f" (tensor {tensor})" if tensor else ""
    raise CorruptFileError(f"{path} {what}{where}", found=found, do=do)
