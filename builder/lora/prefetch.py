"""Adapters as files: what TensorRT-LLM reads from its `lora_prefetch_dir` when it starts.

A folder for each, called by its task id, with two arrays (`peftCacheManager.cpp`,
prefetchLoraWeights). As those of `hf_lora_convert.py` they have a first dimension of 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from builder.errors import ArtifactError
from builder.lora.adapter import Adapter
from builder.lora.rows import Config, Weights, arrays

WEIGHTS_FILE = "model.lora_weights.npy"
CONFIG_FILE = "model.lora_config.npy"


def write_prefetch(
    folder: Path,
    adapters: Mapping[int, Adapter],
    config: Mapping[str, Any],
    modules: Collection[str] | None = None,
) -> None:
    """Write adapters by task id into `folder`, which may be there; as `arrays` has them.

    Raises what `arrays` raises, and OSError as the file system does.
    """
    for task_id, adapter in adapters.items():
        weights, numbers = arrays(adapter, config, modules)
        own = folder / str(task_id)
        own.mkdir(parents=True)
        np.save(own / WEIGHTS_FILE, weights[None])
        np.save(own / CONFIG_FILE, numbers[None])


def is_prefetched(folder: Path) -> bool:
    """Whether `folder` is an adapter in this form."""
    return (folder / CONFIG_FILE).is_file()


def read_arrays(folder: Path) -> tuple[Weights, Config]:
    """The arrays in one adapter's folder, without the first dimension.

    Raises ArtifactError for files that aren't arrays of numbers.
    """
    weights, config = (_array(folder / name) for name in (WEIGHTS_FILE, CONFIG_FILE))
    return weights, config


def _array(file: Path) -> Any:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{file} can't be read", found=str(error)) from error
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2:
        raise ArtifactError(f"{file} is no adapter's array", found=f"the shape {array.shape}")
    return array
