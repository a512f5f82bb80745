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
from builder.quantized_shapes import KNOWN, checkpoint_tensors
from builder.safetensors_file import StoredTensor

_AGAIN = "make the checkpoint again"
_SHOWN = 5
_WITH_NAN = (*FLOATS, "float8_e4m3fn")


def check(path: Path, progress: Progress = silent) -> None:
    """Read the whole checkpoint in `path`; raise ArtifactError for the first kind of damage.

    Of a quantization whose tensors aren't known here, it is only known which weights there must be.
    `progress` counts a rank's tensors.
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


def _check_numbers(path: Path, tensor: StoredTensor) -> None:
    if tensor.dtype in _WITH_NAN and not all(np.isfinite(block).all() for block in tensor.blocks()):
        raise ArtifactError(
            f"{path}: the tensor {tensor.name} has NaN or infinite numbers", do=_AGAIN
        )


def some(names: list[Any]) -> str:
    """A few of many names, for an error."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
