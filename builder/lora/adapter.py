"""Reads a LoRA adapter as PEFT saves it: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder import safetensors_file
from builder.errors import ModelError
from builder.lora.peft_fields import refuse_uncarried
from builder.safetensors_file import StoredTensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is added to one linear: `scale` * `out` @ `into`, read when asked for."""

    into: StoredTensor
    """[rank, in]"""
    out: StoredTensor
    """[out, rank]"""
    scale: float

    @property
    def rank(self) -> int:
        """How many numbers are between the two."""
        return self.into.shape[0]

    def matrices(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """[rank, in] and [out, rank], the scale in the second."""
        out = self.out.numpy().astype(np.float32) * np.float32(self.scale)
        return self.into.numpy().astype(np.float32), out


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter; `changes` are by the name of the linear in the Hugging Face model."""

    folder: Path
    changes: Mapping[str, Change]

    @property
    def rank(self) -> int:
        """The largest of its linears'."""
        return max(change.rank for change in self.changes.values())


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`; its weights are read when asked for.

    Raises ModelError for a folder that is none, and, by the field or tensor, for what an engine
    can't add to a model; CorruptFileError for a damaged file.
    """
    config = _config(folder)
    refuse_uncarried(folder, config)
    parts: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in safetensors_file.read(_weights(folder)).items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ModelError(
                f"the adapter {folder} changes more than an engine's linears",
                found=f"the tensor {name}",
                do="merge it into the model with PEFT's merge_and_unload, and convert that",
            )
        parts.setdefault(match[1], {})[match[2]] = tensor
    if not parts:
        raise ModelError(f"the adapter {folder} is empty", found="no tensors")
    return Adapter(
        folder=folder,
        changes={name: _change(folder, config, name, pair) for name, pair in parts.items()},
    )


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / CONFIG
    try:
        config = json.loads(file.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{folder} is not a LoRA adapter in Hugging Face's form",
            found=f"{CONFIG}: {error.strerror}",
        ) from None
    except ValueError as error:
        raise ModelError(f"{file} is not JSON", found=str(error)) from None
    if not isinstance(config, dict):
        raise ModelError(f"{file} is not an object", found=type(config).__name__)
    return config


def _weights(folder: Path) -> Path:
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = folder / "adapter_model.bin"
        raise ModelError(
            f"{folder} has no {WEIGHTS}",
            found=f"{pickled.name}, which can run code when it is read"
            if pickled.is_file()
            else None,
            do="load it with PEFT and save it again: model.save_pretrained(…)",
        )
    return file


def _change(
    folder: Path, config: Mapping[str, Any], name: str, pair: Mapping[str, StoredTensor]
) -> Change:
    if missing := {"A", "B"} - pair.keys():
        raise ModelError(
            f"the adapter {folder} is not whole", found=f"no lora_{missing.pop()} of {name}"
        )
    into, out = pair["A"], pair["B"]
    if not (len(into.shape) == len(out.shape) == 2 and 0 < into.shape[0] == out.shape[1]):
        raise ModelError(
            f"the adapter {folder} changes a module that isn't a linear",
            found=f"{name}: lora_A {list(into.shape)}, lora_B {list(out.shape)}",
        )
    return Change(into=into, out=out, scale=_scale(folder, config, name, into.shape[0]))


def _scale(folder: Path, config: Mapping[str, Any], name: str, rank: int) -> float:
    """PEFT's `scaling`: alpha over the rank, or over its root for rsLoRA."""
    patterns = config.get("alpha_pattern") or {}
    alpha = next(
        (patterns[each] for each in patterns if re.fullmatch(rf"(.*\.)?({each})", name)),
        config.get("lora_alpha"),
    )
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
        raise ModelError(f"the adapter {folder} has no scale", found=f"lora_alpha {alpha!r}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
