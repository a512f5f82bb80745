"""Reads what an engine must know of LoRA adapters before it is built: where, and of which rank."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ModelError
from builder.lora import changed_modules, read_adapter

_NAME_THEM = "name what adapters change with --set lora_target_modules=attn_q,…"
_TOGETHER = ("attn_q", "attn_k", "attn_v")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One adapter in Hugging Face's form; `config` is its adapter_config.json."""

    folder: Path
    config: Mapping[str, Any]
    rank: int

    @property
    def dora(self) -> bool:
        """Whether it has magnitudes too."""
        return bool(self.config.get("use_dora"))


def target_modules(folders: Iterable[Path], checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """What the adapters in `folders` change of a model, in TensorRT-LLM's names.

    Raises ModelError for an adapter that an engine can't add to the model, and for a model that
    has no family's table.
    """
    try:
        return changed_modules([read_adapter(folder) for folder in folders], checkpoint)
    except ModelError as error:
        raise ModelError(
            error.what,
            found=error.found,
            do=" or ".join(filter(None, (error.do, _NAME_THEM))),
        ) from error


def read(folder: Path) -> Adapter:
    """Read an adapter's config. Raises ModelError for a folder that is none."""
    config = _config(folder)
    rank = config.get("r")
    if type(rank) is not int or rank < 1:
        raise ModelError(f"{folder} has no rank", found=f"r {rank!r}")
    return Adapter(folder=folder, config=config, rank=rank)


def whole(modules: Iterable[str]) -> tuple[str, ...]:
    """Modules, each once: attention's queries, keys and values are adapted together or not."""
    named = list(modules)
    together = _TOGETHER if set(named) & set(_TOGETHER) else ()
    return tuple(dict.fromkeys((*together, *named)))


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{folder} is not a LoRA adapter in Hugging Face's form", found=error.strerror
        ) from None
    except ValueError as error:
        raise ModelError(f"{file} is not JSON", found=str(error)) from None
    if not isinstance(config, dict):
        raise ModelError(f"{file} is not an object", found=type(config).__name__)
    if not any((folder / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin")):
        raise ModelError(f"{folder} has no weights", do="it needs adapter_model.safetensors")
    return config
