"""Verifies a checkpoint: its files' digests, its tensors' names, shapes, dtypes and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from builder import artifact, families, manifest
from builder.ahead import ahead
from builder.checkpoint import Checkpoint, rank_file
from builder.digest import DEFAULT, Digest
from builder.dtypes import FLOATS, NUMPY, all_finite
from builder.errors import ArtifactError
from builder.progress import Progress, silent
from builder.quantized_shapes import KNOWN, checkpoint_tensors
from builder.safetensors_file import BLOCK_BYTES, StoredTensor
from builder.stored_file import StoredFile

_AGAIN = "make the checkpoint again"
_SHOWN = 5
_WITH_NAN = (*FLOATS, "float8_e4m3fn")


def check(path: Path, progress: Progress = silent) -> None:
    """Read the whole checkpoint in `path`; raise ArtifactError for the first kind of damage.

    The weights are read once, for their digest and their numbers. Of a quantization whose tensors
    aren't known here, it is only known which weights there must be. `progress` counts bytes.
    """
    checkpoint = Checkpoint.open(path)
    found = manifest.read(path, "checkpoint") if (path / manifest.NAME).is_file() else None
    if found:
        artifact.require_files(path, found)
    ranks = {rank_file(rank): checkpoint.tensors(rank) for rank in range(checkpoint.layout.files)}
    total = sum(tensor.nbytes for tensors in ranks.values() for tensor in tensors.values())
    digests: dict[str, Digest] = {}
    not_finite, done = [], 0
    for name, tensors in ranks.items():
        entry = found.files.get(name) if found else None
        digests[name] = Digest(entry.algorithm if entry else DEFAULT)
        for tensor, data, finite in _read(path / name, tensors):
            digests[name].update(data)
            not_finite += [] if finite else [tensor]
            done += len(data) if tensor else 0
            progress(done, total)
    if found:
        artifact.verify(path, found, {name: str(taken) for name, taken in digests.items()})
    for rank, tensors in enumerate(ranks.values()):
        check_names(checkpoint, tensors, rank)
    if not_finite:
        raise ArtifactError(
            f"{path}: the tensor {not_finite[0]} has NaN or infinite numbers", do=_AGAIN
        )


def _read(
    path: Path, tensors: Mapping[str, StoredTensor]
) -> Iterator[tuple[str, memoryview, bool]]:
    """A file's bytes in order, each with its tensor's name and whether it is finite numbers."""
    size = min((tensor.begin for tensor in tensors.values()), default=path.stat().st_size)
    yield "", StoredFile(path).read(0, size).data, True
    with closing(ahead(_steps(tensors.values()))) as steps:
        for name, examined in steps:
            yield name, *examined()


_Examined = tuple[memoryview, bool]


def _steps(
    tensors: Iterable[StoredTensor],
) -> Iterator[tuple[str, Callable[[], _Examined], bool]]:
    for tensor in tensors:
        end = tensor.begin + tensor.nbytes
        for begin in range(tensor.begin, end, BLOCK_BYTES):
            size = min(BLOCK_BYTES, end - begin)
            yield tensor.name, partial(_examined, tensor, begin, size), True


def _examined(tensor: StoredTensor, begin: int, size_bytes: int) -> _Examined:
    content = tensor.file.read(begin, size_bytes)
    numbers = content.view(NUMPY[tensor.dtype])
    return content.data, tensor.dtype not in _WITH_NAN or all_finite(numbers)


def check_names(checkpoint: Checkpoint, tensors: Mapping[str, StoredTensor], rank: int = 0) -> None:
    """Compare the tensors of a rank with what the checkpoint's config asks for.

    Raises UnknownFamilyError, LimitError for a layout that can't be, and ArtifactError for tensors
    that are missing, left over, or of another shape or dtype.
    """
    config = checkpoint.config
    # ModelOpt's config.json has `bias` for what TensorRT-LLM's has as `attn_bias`.
    fields = {**config, "attn_bias": config.get("attn_bias", config.get("bias", False))}
    family = families.of(config["architecture"])
    checkpoint.layout.check(family, fields)
    # One too many is enough to know that some are lacking, however many layers it claims.
    wanted = islice(checkpoint.layout.tensors(family, fields, rank), len(tensors) + 1)
    expected = checkpoint_tensors(config, ((t.name, t.dtype, t.shape) for t in wanted))
    _complain(checkpoint, "lacks tensors", sorted(expected.keys() - tensors.keys()))
    if checkpoint.quant_algo not in KNOWN:
        return
    left = tensors.keys() - expected.keys()
    if (config.get("quantization") or {}).get("kv_cache_quant_algo"):
        left = {name for name in left if not name.endswith("_cache_scaling_factor")}
    _complain(checkpoint, "has tensors too many", sorted(left))
    wrong = [
        f"{name} {tensors[name].dtype} {list(tensors[name].shape)}, expected"
        f" {' or '.join(wanted.dtypes)} {list(wanted.shape)}"
        for name, wanted in expected.items()
        if not wanted.fits(tensors[name].dtype, tensors[name].shape)
    ]
    _complain(checkpoint, "has tensors of another shape or dtype", wrong)


def _complain(checkpoint: Checkpoint, what: str, names: list[str]) -> None:
    if names:
        raise ArtifactError(f"{checkpoint.path} {what}", found=some(names), do=_AGAIN)


def some(names: list[Any]) -> str:
    """A few of many names, for an error."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
