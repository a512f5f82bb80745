"""The container: metadata and tensors of a GGUF file, tensors dequantized a block at a time."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder.dtypes import NUMPY, Array
from builder.errors import CorruptFileError, ModelError
from builder.safetensors_file import ALL
from builder.source.gguf_tables import DTYPES

BLOCK_ELEMENTS = 1 << 20
"""How much is dequantized at once; the decoders need several float32 arrays of that size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GgufTensor:
    """One tensor, as Hugging Face would store it: shape [out, in], rows in `order` if given."""

    name: str
    kind: Any
    """A gguf.GGMLQuantizationType."""
    shape: tuple[int, ...]
    begin: int
    nbytes: int
    map: mmap.mmap
    order: Array | None = None

    @property
    def dtype(self) -> str:
        """The dtype of what `blocks` gives."""
        return DTYPES.get(self.kind.name, "float32")

    def blocks(self, rows: slice = ALL) -> Iterator[Array]:
        """Consecutive flat pieces of the given rows (of dimension 0), of `dtype`."""
        count = self.shape[0] if len(self.shape) > 1 else 1
        stored = np.frombuffer(self.map, np.uint8, self.nbytes, self.begin).reshape(count, -1)
        if len(self.shape) == 1:
            row = self._decode(stored).reshape(-1)
            yield (row if self.order is None else row[self.order])[rows]
            return
        first, last, _ = rows.indices(count)
        step = max(1, BLOCK_ELEMENTS // math.prod(self.shape[1:]))
        for start in range(first, last, step):
            chosen = slice(start, min(start + step, last))
            picked = stored[chosen if self.order is None else self.order[chosen]]
            yield self._decode(picked).reshape(-1)
        first = self.begin - self.begin % mmap.PAGESIZE
        self.map.madvise(mmap.MADV_DONTNEED, first, self.begin + self.nbytes - first)

    def rows(self, rows: slice = ALL) -> Array:
        """Some rows, or a vector's elements, decoded."""
        flat = np.concatenate(list(self.blocks(rows)))
        return flat.reshape(-1, self.shape[-1]) if len(self.shape) > 1 else flat

    def _decode(self, stored: Array) -> Array:
        if self.kind.name in DTYPES:
            return stored.view(NUMPY[self.dtype])
        from gguf import quants

        with np.errstate(all="ignore"):
            return np.ascontiguousarray(quants.dequantize(stored, self.kind), np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class GgufFile:
    """What is in a file, under GGUF's own names."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read(path: Path) -> GgufFile:
    """The content of a GGUF file; tensors stay on the disk.

    Raises CorruptFileError for a file that is truncated or isn't GGUF, ModelError for a tensor
    of a type that can't be dequantized.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        byte_order = reader.byte_order
        entries = [
            (tensor.name, tensor.tensor_type, tuple(map(int, reversed(tensor.shape))),
             int(tensor.data_offset), int(tensor.n_bytes))
            for tensor in reader.tensors
        ]  # fmt: skip
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, TypeError) as error:
        raise CorruptFileError(
            f"{path} is truncated or not a GGUF file", found=str(error), do="download it again"
        ) from error
    if byte_order != "I":
        raise ModelError(f"{path} is a GGUF file of another byte order", do="convert it again")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tensors = {
        name: GgufTensor(name=name, kind=kind, shape=shape, begin=begin, nbytes=nbytes, map=mapped)
        for name, kind, shape, begin, nbytes in entries
    }
    _check(path, tensors)
    return GgufFile(path=path, fields=fields, tensors=tensors)


def _check(path: Path, tensors: dict[str, GgufTensor]) -> None:
    for tensor in tensors.values():
        if tensor.begin + tensor.nbytes > len(tensor.map):
            raise CorruptFileError(
                f"{path} is truncated (tensor {tensor.name})",
                found=f"{len(tensor.map)} bytes, {tensor.begin + tensor.nbytes} needed",
                do="download it again",
            )
    for kind in {tensor.kind: tensor for tensor in tensors.values()}.values():
        _check_type(path, kind)


def _check_type(path: Path, tensor: GgufTensor) -> None:
    """Try the decoder on nothing: a type without one is known before any work is done."""
    from gguf import GGML_QUANT_SIZES, quants

    _, block_bytes = GGML_QUANT_SIZES[tensor.kind]
    try:
        with np.errstate(all="ignore"):
            quants.dequantize(np.zeros((1, block_bytes), np.uint8), tensor.kind)
    except NotImplementedError:
        raise ModelError(
            f"{path}: the tensor {tensor.name} is of a type that can't be dequantized",
            found=tensor.kind.name,
            do="use another quantization of the model, such as Q8_0 or F16",
        ) from None
