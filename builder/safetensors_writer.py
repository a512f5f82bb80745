"""Writes safetensors files as a stream, so that no more than some blocks are ever in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

from builder.ahead import ahead
from builder.digest import COPY_BYTES, Digest
from builder.dtypes import NUMPY, SAFETENSORS_CODE_OF, Array, raw
from builder.progress import Progress, silent
from builder.safetensors_file import StoredTensor

_SPAN_BYTES = 1 << 24
"""How much is copied between two words on the progress."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes of a tensor's file, from offset `begin`, that are copied as they are stored."""

    tensor: StoredTensor
    begin: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A step, independent of all others: `run()` gives a C-contiguous array of `size_bytes`.

    It runs on any thread, some steps before its turn.
    """

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


class _Output:
    """A file that is written in order; its digest is taken on the way."""

    def __init__(self, path: Path, tensors: Sequence[PendingTensor], stack: ExitStack) -> None:
        """Create the file, with its header; `stack` closes it."""
        self.tensors = _ordered(tensors)
        self.digest = Digest()
        self._file = stack.enter_context(path.open("wb"))
        self.write(memoryview(_header(self.tensors)))

    def write(self, data: memoryview) -> None:
        """Append bytes; in pieces that are still in the processor's cache when they are written."""
        for start in range(0, len(data), COPY_BYTES):
            chunk = data[start : start + COPY_BYTES]
            self.digest.update(chunk)
            self._file.write(chunk)


def write(path: Path, tensors: Sequence[PendingTensor], progress: Progress = silent) -> str:
    """Write one file as `write_all` does; returns its digest."""
    return write_all({path: tensors}, progress)[path]


def write_all(
    files: Mapping[Path, Sequence[PendingTensor]], progress: Progress = silent
) -> dict[Path, str]:
    """Write the files and return the digest of each, taken on the way.

    The header is padded to 8 bytes and tensors keep their order, or, where that would leave one
    unaligned, wider dtypes come first. The same tensors give the same bytes. The files grow
    together, tensor by tensor: what ranks share of a source is read from the disk once.
    `progress` counts bytes of tensors. Raises OSError as the file system does, CorruptFileError for
    a source that is cut meanwhile, and what a computation raises.
    """
    total = sum(tensor.nbytes for tensors in files.values() for tensor in tensors)
    done = 0
    with ExitStack() as stack:
        outputs = {path: _Output(path, tensors, stack) for path, tensors in files.items()}
        steps = stack.enter_context(closing(ahead(_steps(list(outputs.values())))))
        for output, content in steps:
            for data in content():
                output.write(data)
                done += len(data)
            progress(done, total)
    return {path: str(output.digest) for path, output in outputs.items()}


def header_size(tensors: Sequence[PendingTensor]) -> int:
    """How many bytes the file has before the first tensor's."""
    return len(_header(_ordered(tensors)))


def _ordered(tensors: Sequence[PendingTensor]) -> list[PendingTensor]:
    begins = accumulate((tensor.nbytes for tensor in tensors), initial=0)
    if not any(at % NUMPY[each.dtype].itemsize for at, each in zip(begins, tensors, strict=False)):
        return list(tensors)
    return sorted(tensors, key=lambda tensor: -NUMPY[tensor.dtype].itemsize)


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


_Step = tuple[_Output, Callable[[], Iterable[memoryview]], bool]


def _steps(outputs: Sequence[_Output]) -> Iterator[_Step]:
    """What gives the files' bytes, the first tensor of each before the second of any."""
    for tensors in zip_longest(*(output.tensors for output in outputs)):
        for output, tensor in zip(outputs, tensors, strict=True):
            for content, early in _content(tensor) if tensor else ():
                yield output, content, early


def _content(tensor: PendingTensor) -> Iterator[tuple[Callable[[], Iterable[memoryview]], bool]]:
    """Calls that give the tensor's bytes, and whether they compute; another size is our own bug."""
    size = 0
    for segment in tensor.segments():
        size += segment.size_bytes
        if isinstance(segment, Compute):
            yield partial(_computed, tensor, segment), True
            continue
        end = segment.begin + segment.size_bytes
        for begin in range(segment.begin, end, _SPAN_BYTES):
            count = min(_SPAN_BYTES, end - begin)
            yield partial(segment.tensor.file.chunks, begin, count), False
    if size != tensor.nbytes:
        raise ValueError(f"{tensor.name}: {size} bytes given, not {tensor.nbytes}")


def _computed(tensor: PendingTensor, segment: Compute) -> list[memoryview]:
    block = segment.run()
    if block.dtype != NUMPY[tensor.dtype] or block.nbytes != segment.size_bytes:
        raise TypeError(f"{tensor.name}: {block.nbytes} bytes of {block.dtype} computed")
    return [raw(block)]
