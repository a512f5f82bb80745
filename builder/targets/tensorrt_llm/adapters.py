"""Reads what an engine must know of LoRA adapters before it is built: where, and of which rank."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ModelError

MODULES: Mapping[str, str] = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_dense",
    "gate_proj": "mlp_h_to_4h",
    "down_proj": "mlp_4h_to_h",
    "up_proj": "mlp_gate",
    "gate_up_proj": "mlp_gate_up",
    "w1": "moe_h_to_4h",
    "w2": "moe_4h_to_h",
    "w3": "moe_gate",
    "gate": "moe_router",
}
"""Hugging Face's name of a linear → TensorRT-LLM's (`lora_helper.py`)."""

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

    def modules(self) -> list[str]:
        """What it changes, in TensorRT-LLM's names. Raises ModelError for what has none."""
        names = self.config.get("target_modules")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ModelError(
                f"{self.folder} doesn't list the modules that it changes",
                found=repr(names),
                do="name them with --set lora_target_modules=attn_q,…",
            )
        if unknown := sorted(name for name in names if name not in MODULES):
            raise ModelError(
                f"{self.folder} changes modules whose names TensorRT-LLM doesn't know",
                found=", ".join(unknown),
                do=f"known are {', '.join(MODULES)}; else --set lora_target_modules=attn_qkv,…",
            )
        return [MODULES[name] for name in MODULES if name in names]


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
