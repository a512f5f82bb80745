"""The TensorRT-LLM checkpoint folder: open one, ours or another tool's, and verify it.

Format: TensorRT-LLM 1.2, `docs/source/legacy/architecture/checkpoint.md`: config.json and one
`rank<N>.safetensors` per rank.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import manifest, safetensors_file
from builder.errors import ArtifactError, CorruptFileError
from builder.safetensors_file import StoredTensor
from builder.source.huggingface import GENERATION_CONFIG, TOKENIZER_FILES

CONFIG = "config.json"
_AGAIN = "make the checkpoint again"
_REQUIRED = ("architecture", "dtype", "num_hidden_layers", "num_attention_heads", "hidden_size")


def rank_file(rank: int) -> str:
    """Name of the weights of one rank."""
    return f"rank{rank}.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """An opened checkpoint; `config` is the content of its config.json."""

    path: Path
    config: dict[str, Any]

    @staticmethod
    def open(path: Path) -> Checkpoint:
        """Open the folder. Raises ArtifactError when it isn't a whole checkpoint."""
        config = _read_config(path)
        checkpoint = Checkpoint(path=path, config=config)
        missing = [
            rank_file(rank)
            for rank in range(checkpoint.world_size)
            if not (path / rank_file(rank)).is_file()
        ]
        if missing:
            raise ArtifactError(
                f"{path} is not a whole checkpoint", found=f"no {', '.join(missing)}", do=_AGAIN
            )
        return checkpoint

    @property
    def world_size(self) -> int:
        """How many ranks the weights are divided over."""
        return int(self.config.get("mapping", {}).get("world_size", 1))

    @property
    def quant_algo(self) -> str | None:
        """TensorRT-LLM's name of the quantization, None for plain weights."""
        algo: str | None = (self.config.get("quantization") or {}).get("quant_algo")
        return algo

    @property
    def name(self) -> str:
        """The model's name, from the manifest where there is one, else the folder's."""
        if not (self.path / manifest.NAME).is_file():
            return self.path.resolve().name
        return str(manifest.read(self.path, "checkpoint").about["name"])

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


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is not a checkpoint",
            found=f"no {CONFIG} in it" if path.is_dir() else "no such folder",
            do="make one with trtbuild convert or trtbuild quantize",
        ) from None
    except ValueError as error:
        raise ArtifactError(
            f"{path / CONFIG} can't be read", found=str(error), do=_AGAIN
        ) from error
    fields: dict[str, Any] = config if isinstance(config, dict) else {}
    if missing := [name for name in _REQUIRED if name not in fields]:
        raise ArtifactError(
            f"{path / CONFIG} is not a TensorRT-LLM checkpoint's",
            found=f"no field {', '.join(missing)}",
            do="give a folder made by trtbuild convert or trtbuild quantize",
        )
    return fields
