"""Writes a safetensors file as a stream, so that no more than a block is ever in memory."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.dtypes import NUMPY, SAFETENSORS_CODE_OF, Array, raw
from builder.progress import Progress, silent
from builder.safetensors_file import StoredTensor


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes of a mapped file that are copied as they are stored."""

    tensor: StoredTensor
    begin: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A step, independent of all others: `run()` gives a C-contiguous array of `size_bytes`."""

    size_bytes: int
    run: Callable[[], Array]


Segment = Span | Compute


@dataclass(frozen=True, kw_only=True)
class PendingTensor:
    """A tensor to be written: all that the header needs, and where its elements will come from.

    `segments()` is called once, when its turn comes; they are together the tensor's elements in C
    order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    segments: Callable[[], Iterable[Segment]]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * NUMPY[self.dtype].itemsize


def write(path: Path, tensors: Sequence[PendingTensor], progress: Progress = silent) -> str:
    """Write the file and return the SHA-256 of its bytes, in hex, taken on the way.

    Tensors keep their order within a dtype; wider dtypes come first and the header is padded to
    8 bytes, so that every tensor is aligned. The same tensors give the same bytes. `progress`
    counts bytes of tensors. Raises OSError as the file system does.
    """
    ordered = sorted(tensors, key=lambda tensor: -NUMPY[tensor.dtype].itemsize)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        header = _header(ordered)
        file.write(header)
        digest.update(header)
        done, total = 0, sum(tensor.nbytes for tensor in ordered)
        for tensor in ordered:
            for block in _checked(tensor):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress(done, total)
    return digest.hexdigest()


def header_size(tensors: Sequence[PendingTensor]) -> int:
    """How many bytes the file has before the first tensor's."""
    return len(_header(tensors))


def _header(tensors: Sequence[PendingTensor]) -> bytes:
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        fields[tensor.name] = {
            "dtype": SAFETENSORS_CODE_OF[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position := position + tensor.nbytes],
        }
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _checked(tensor: PendingTensor) -> Iterable[memoryview]:
    """The tensor's bytes; a source that gives another dtype or size is our own bug."""
    size = 0
    for segment in tensor.segments():
        size += segment.size_bytes
        if isinstance(segment, Span):
            yield memoryview(segment.tensor.map)[segment.begin : segment.begin + segment.size_bytes]
            continue
        block = segment.run()
        if block.dtype != NUMPY[tensor.dtype]:
            raise TypeError(f"{tensor.name}: a block of {block.dtype}, not {tensor.dtype}")
        yield raw(block)
    if size != tensor.nbytes:
        raise ValueError(f"{tensor.name}: {size} bytes given, not {tensor.nbytes}")
