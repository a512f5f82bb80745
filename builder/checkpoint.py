"""The TensorRT-LLM checkpoint folder: open one, ours or another tool's, and verify it.

Format: TensorRT-LLM 1.2, `docs/source/legacy/architecture/checkpoint.md`: config.json and one
`rank<N>.safetensors` per rank.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import manifest, safetensors_file
from builder.dtypes import FLOATS
from builder.errors import ArtifactError, CorruptFileError
from builder.families import lookup
from builder.mapping import Layout
from builder.quantized_shapes import MIXED
from builder.safetensors_file import StoredTensor
from builder.source.huggingface import GENERATION_CONFIG, TOKENIZER_FILES

CONFIG = "config.json"
QUANT_CONFIG = "quant_cfg.json"
"""The quantization of each linear, where they differ."""
_AGAIN = "make the checkpoint again"
_REQUIRED: dict[str, type] = {
    "architecture": str,
    "dtype": str,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "num_key_value_heads": int,
    "head_size": int,
    "hidden_size": int,
    "intermediate_size": int,
    "vocab_size": int,
    "max_position_embeddings": int,
}
_OPTIONAL: dict[str, type] = {
    "norm_epsilon": float,
    "rotary_base": float,
    "rotary_scaling": dict,
    "sliding_window": int,
    "mapping": dict,
    "moe": dict,
    "quantization": dict,
    "runtime_defaults": dict,
}
_KINDS = {
    str: "a text",
    int: "a positive whole number",
    float: "a positive number",
    dict: "an object",
}


def rank_file(rank: int) -> str:
    """Name of the weights of one rank."""
    return f"rank{rank}.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """An opened checkpoint; `config` is the content of its config.json.

    Where linears differ in their quantization, its `quantization` has quant_cfg.json's
    `quantized_layers` in it.
    """

    path: Path
    config: dict[str, Any]

    @staticmethod
    def open(path: Path) -> Checkpoint:
        """Open the folder. Raises ArtifactError when it isn't a whole checkpoint."""
        config = read_config(path)
        checkpoint = Checkpoint(path=path, config=config)
        for rank in range(checkpoint.layout.files):
            if not (path / rank_file(rank)).is_file():
                raise ArtifactError(
                    f"{path} is not a whole checkpoint", found=f"no {rank_file(rank)}", do=_AGAIN
                )
        return checkpoint

    @property
    def layout(self) -> Layout:
        """How the weights are divided over ranks."""
        return Layout.of_config(self.config)

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return self.layout.world_size

    @property
    def quant_algo(self) -> str | None:
        """TensorRT-LLM's name of the quantization, None for plain weights."""
        algo: str | None = (self.config.get("quantization") or {}).get("quant_algo")
        return algo

    @property
    def name(self) -> str:
        """The model's name, from the manifest where there is one, else the folder's."""
        own = self.path.resolve().name
        if not (self.path / manifest.NAME).is_file():
            return own
        return str(manifest.read(self.path, "checkpoint").about.get("name", own))

    @property
    def tokenizer_files(self) -> list[Path]:
        """The tokenizer's files and the generation config that lie beside the weights."""
        names = (*TOKENIZER_FILES, GENERATION_CONFIG)
        return [self.path / name for name in names if (self.path / name).is_file()]

    def tensors(self, rank: int = 0) -> dict[str, StoredTensor]:
        """A rank's tensors by name, read lazily. Raises ArtifactError for a damaged file."""
        try:
            return safetensors_file.read(self.path / rank_file(rank))
        except CorruptFileError as error:
            raise ArtifactError(error.what, found=error.found, do=_AGAIN) from error


def read_config(path: Path) -> dict[str, Any]:
    """The folder's config.json, weights or not. Raises ArtifactError for one that isn't whole."""
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{path} is not a checkpoint",
            found=f"no {CONFIG} in it" if path.is_dir() else "no such folder",
            do="make one with trtbuild convert or trtbuild quantize",
        ) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path / CONFIG} can't be read", found=str(error), do=_AGAIN
        ) from error
    fields: dict[str, Any] = config if isinstance(config, dict) else {}
    if missing := [name for name in _REQUIRED if fields.get(name) is None]:
        raise ArtifactError(
            f"{path / CONFIG} is not a TensorRT-LLM checkpoint's",
            found=f"no field {', '.join(missing)}",
            do="give a folder made by trtbuild convert or trtbuild quantize",
        )
    _check_fields(path, fields)
    if (fields.get("quantization") or {}).get("quant_algo") == MIXED:
        fields["quantization"] = {**fields["quantization"], "quantized_layers": _layers(path)}
    return fields


def _layers(path: Path) -> dict[str, Any]:
    try:
        layers = json.loads((path / QUANT_CONFIG).read_bytes())["quantized_layers"]
        if not all(isinstance(each, dict) for each in layers.values()):
            raise TypeError("a layer that is no object")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} doesn't say how its linears are quantized",
            found=f"{QUANT_CONFIG}: {error}",
            do=_AGAIN,
        ) from error
    return dict(layers)


def _check_fields(path: Path, fields: dict[str, Any]) -> None:
    """What the fields hold must be what their readers take for granted."""
    for name, kind in {**_REQUIRED, **_OPTIONAL}.items():
        _require(path, name, kind, fields.get(name))
    for name in ("world_size", "tp_size", "pp_size", "cp_size", "gpus_per_node"):
        _require(path, f"mapping.{name}", int, (fields.get("mapping") or {}).get(name))
    for name in ("mapping.moe_ep_size", "moe.num_experts", "embedding_sharding_dim"):
        if type(value := lookup(fields, name)) not in (int, type(None)):
            raise ArtifactError(
                f"{path / CONFIG}: {name} must be a whole number", found=repr(value), do=_AGAIN
            )
    if fields["dtype"] not in FLOATS:
        raise ArtifactError(
            f"{path / CONFIG}: dtype must be one of {', '.join(FLOATS)}",
            found=repr(fields["dtype"]),
            do=_AGAIN,
        )


def _require(path: Path, name: str, kind: type, value: Any) -> None:
    if value is None:
        return
    number = kind in (int, float)
    right = type(value) in ((int, float) if kind is float else (kind,))
    if not right or (number and not 0 < value < math.inf):
        raise ArtifactError(
            f"{path / CONFIG}: {name} must be {_KINDS[kind]}", found=repr(value), do=_AGAIN
        )
