"""Compares a conversion with ModelOpt's export of the same model, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from builder.checkpoint import Checkpoint
from builder.checkpoint_check import check
from builder.convert import ConvertOptions, convert
from builder.dtypes import Array
from builder.safetensors_file import StoredTensor

LAYOUTS: tuple[dict[str, Any], ...] = ({}, {"tp": 2, "parallel_embedding": True}, {"pp": 2})
"""ModelOpt divides the embedding whenever there are tensor-parallel ranks."""


def unlike_modelopt(folder: Path, work: Path, layout: Mapping[str, Any]) -> set[str]:
    """The names of the tensors that ours and ModelOpt's checkpoint don't have alike.

    Ours is checked too. The model in `folder` must be exact in bfloat16: ModelOpt rounds before
    its arithmetic, we after it.
    """
    from modelopt_export import export

    options = ConvertOptions(dtype="bfloat16", **layout)
    export(folder, work / "reference", "bfloat16", tp=options.tp, pp=options.pp)
    convert(folder, work / "ours", options=options)
    check(work / "ours")
    ours, theirs = Checkpoint.open(work / "ours"), Checkpoint.open(work / "reference")
    pairs = ((ours.tensors(rank), theirs.tensors(rank)) for rank in range(options.layout.files))
    return {name for mine, other in pairs for name in _unlike(mine, other)}


def _unlike(mine: Mapping[str, StoredTensor], other: Mapping[str, StoredTensor]) -> Iterator[str]:
    for name in mine.keys() | other.keys():
        if name not in mine or name not in other or _facts(mine[name]) != _facts(other[name]):
            yield name


def _facts(tensor: StoredTensor) -> tuple[str, tuple[int, ...], bytes]:
    return tensor.dtype, tensor.shape, bytes(tensor.data())


def arrays_of(folder: Path, rank: int = 0) -> dict[str, Array]:
    """A checkpoint's tensors."""
    return {name: tensor.numpy() for name, tensor in Checkpoint.open(folder).tensors(rank).items()}


def explained(names: set[str], patterns: set[str]) -> set[str]:
    """Those of `patterns` that tell of one of `names`. Every name must be told of."""
    told = {name: {p for p in patterns if fnmatchcase(name, p)} for name in names}
    assert all(told.values()), sorted(name for name, found in told.items() if not found)
    return set().union(*told.values())
