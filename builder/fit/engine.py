"""What a TensorRT-LLM engine folder says of itself: what built it, for which GPU, over how many.

From our manifest where there is one; an engine that `trtllm-build` made by itself has only the
`config.json` that TensorRT-LLM wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.manifest import Manifest
from builder.targets.tensorrt_llm.engine_check import CONFIG, engine_file

TARGET = "tensorrt-llm"


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine: None is what it doesn't say.

    `ranks_here` of its `world_size` ranks run on one machine. `weights_bytes` is the size of each
    rank's engine file and of the weights beside it, None for a missing rank. `checkpoint`
    is its checkpoint's config; `build_config` is what was asked of the compiler, in an engine
    without our manifest what it made of that.
    """

    path: Path
    manifest: Manifest | None
    name: str
    tensorrt_llm: str | None
    tensorrt: str | None
    cuda: str | None
    sm: int | None
    gpu_name: str | None
    image: str | None
    world_size: int
    ranks_here: int
    weights_bytes: tuple[int | None, ...]
    checkpoint: Mapping[str, Any]
    build_config: Mapping[str, Any]

    @property
    def repository(self) -> Path | None:
        """The Triton repository that it lies in, as a version of one of its models."""
        model = self.path.resolve().parent
        return model.parent if (model / "config.pbtxt").is_file() else None

    @property
    def missing(self) -> list[str]:
        """Files of ranks that aren't there, or are empty."""
        return [engine_file(rank) for rank, size in enumerate(self.weights_bytes) if size is None]

    @property
    def streams_weights(self) -> bool:
        """Whether its weights may stay in the host's memory."""
        return bool(self.build_config.get("weight_streaming"))


def is_engine(folder: Path) -> bool:
    """Whether the folder is a TensorRT-LLM engine, made by trtbuild or by trtllm-build alone."""
    if (folder / manifests.NAME).is_file():
        found = manifests.read(folder)
        return found.kind == "engine" and found.options.get("target") == TARGET
    try:
        return "build_config" in _config(folder)
    except ArtifactError:
        return False


def read_engine(folder: Path) -> BuiltEngine:
    """Read it. Raises ArtifactError where it isn't a TensorRT-LLM engine."""
    ours = (folder / manifests.NAME).is_file()
    manifest = manifests.read(folder, "engine") if ours else None
    config = _config(folder)
    checkpoint = _section(config, "pretrained_config")
    mapping = _section(checkpoint, "mapping")
    made_by, options = (manifest.made_by, manifest.options) if manifest else ({}, {})
    about = manifest.about if manifest else {}
    gpu = about.get("gpu") or {}
    world_size = _count(mapping.get("world_size"), 1)
    return BuiltEngine(
        path=folder,
        manifest=manifest,
        name=str(about.get("name") or folder.resolve().name),
        tensorrt_llm=_text(made_by.get("tensorrt_llm") or config.get("version")),
        tensorrt=_text(made_by.get("tensorrt")),
        cuda=_text(made_by.get("cuda")),
        sm=_count(options.get("gpu_sm") or gpu.get("sm"), 0) or None,
        gpu_name=_text(gpu.get("name")),
        image=_text(options.get("image") or about.get("image")),
        world_size=world_size,
        ranks_here=min(world_size, _count(mapping.get("gpus_per_node"), 8)),
        weights_bytes=tuple(_weights_bytes(folder, rank) for rank in range(world_size)),
        checkpoint=checkpoint,
        build_config=_section(options, "build_config") or _section(config, "build_config"),
    )


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text())
    except OSError as error:
        raise ArtifactError(
            f"{folder} is not an engine", found=f"no {CONFIG}", do="give the engine's folder"
        ) from error
    except ValueError as error:
        raise ArtifactError(
            f"{file} can't be read", found=str(error), do="build the engine again"
        ) from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{file} is not an engine's", found="no JSON object")
    return config


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _weights_bytes(folder: Path, rank: int) -> int | None:
    file = folder / engine_file(rank)
    if not file.is_file() or not file.stat().st_size:
        return None
    beside = folder / f"rank{rank}_managed_weights.safetensors"
    return file.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default
