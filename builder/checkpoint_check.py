"""Verifies a checkpoint: its files' digests, its tensors' names, shapes, dtypes and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from builder import artifact, families, manifest
from builder.checkpoint import Checkpoint
from builder.dtypes import FLOATS
from builder.errors import ArtifactError
from builder.progress import Progress, silent
from builder.safetensors_file import StoredTensor

_AGAIN = "make the checkpoint again"
_SHOWN = 5


def check(path: Path, progress: Progress = silent) -> None:
    """Read the whole checkpoint in `path`; raise ArtifactError for the first kind of damage.

    Shapes and dtypes are compared for unquantized checkpoints; of quantized ones it is only known
    which tensors there must be. `progress` counts a rank's tensors.
    """
    checkpoint = Checkpoint.open(path)
    if (path / manifest.NAME).is_file():
        artifact.verify(path, manifest.read(path, "checkpoint"))
    for rank in range(checkpoint.layout.files):
        tensors = checkpoint.tensors(rank)
        check_names(checkpoint, tensors, rank)
        for done, tensor in enumerate(tensors.values()):
            _check_numbers(path, tensor)
            progress(done + 1, len(tensors))


def check_names(checkpoint: Checkpoint, tensors: Mapping[str, StoredTensor], rank: int = 0) -> None:
    """Compare the tensors of a rank with what the checkpoint's config asks for.

    Raises UnknownFamilyError, and ArtifactError for tensors that are missing, left over, or of
    another shape or dtype.
    """
    config = checkpoint.config
    # ModelOpt's config.json has `bias` for what TensorRT-LLM's has as `attn_bias`.
    fields = {**config, "attn_bias": config.get("attn_bias", config.get("bias", False))}
    family = families.of(config["architecture"])
    # One too many is enough to know that some are lacking, however many layers it claims.
    tables = islice(checkpoint.layout.tensors(family, fields, rank), len(tensors) + 1)
    expected = {tensor.name: tensor for tensor in tables}
    _complain(checkpoint, "lacks tensors", sorted(expected.keys() - tensors.keys()))
    if checkpoint.quant_algo:
        return
    _complain(checkpoint, "has tensors too many", sorted(tensors.keys() - expected.keys()))
    wrong = [
        f"{name} {tensors[name].dtype} {list(tensors[name].shape)}, expected"
        f" {wanted.dtype or config['dtype']} {list(wanted.shape)}"
        for name, wanted in expected.items()
        if tensors[name].shape != wanted.shape
        or tensors[name].dtype != (wanted.dtype or config["dtype"])
    ]
    _complain(checkpoint, "has tensors of another shape or dtype", wrong)


def _complain(checkpoint: Checkpoint, what: str, names: list[str]) -> None:
    if names:
        raise ArtifactError(f"{checkpoint.path} {what}", found=some(names), do=_AGAIN)


def _check_numbers(path: Path, tensor: StoredTensor) -> None:
    if tensor.dtype in FLOATS and not all(np.isfinite(block).all() for block in tensor.blocks()):
        raise ArtifactError(
            f"{path}: the tensor {tensor.name} has NaN or infinite numbers", do=_AGAIN
        )


def some(names: list[Any]) -> str:
    """A few of many names, for an error."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
