"""What a repository needs to know of an engine folder, read from its `config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.manifest import Manifest

TOKENIZER = "tokenizer.json"
ENGINE_DIR = "tensorrt_llm/1"
"""Where engine and tokenizer lie in a repository, from its root: Triton runs there."""
OPENVINO_FILES = ("openvino_model.xml", "openvino_model.bin")
_BUILD = "build it with trtbuild build"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine's limits (tokens, requests) and what it was built for."""

    path: Path
    name: str
    target: str
    architecture: str
    max_batch_size: int
    max_seq_len: int
    max_input_len: int
    max_num_tokens: int
    max_beam_width: int
    tokens_per_block: int
    paged_context: bool
    logits_dtype: str
    world_size: int
    manifest: Manifest


def read(path: Path) -> Engine:
    """The engine in `path`.

    Raises ArtifactError when the folder is something else, or lacks its engine or tokenizer files.
    """
    manifest = manifests.read(path)
    if manifest.kind != "engine":
        raise ArtifactError(
            f"{path} is not an engine", found=f"a {manifest.kind}", do=_next_step(manifest.kind)
        )
    if manifest.options.get("target") == "llmapi":
        raise ArtifactError(
            f"{path} is for TensorRT-LLM's LLM API, which needs no Triton repository",
            found="target llmapi",
            do="serve it with TensorRT-LLM's own trtllm-serve",
        )
    config = _config(path)
    build = _section(path, config, "build_config")
    model = _section(path, config, "pretrained_config")
    plugins = build.get("plugin_config") or {}
    engine = Engine(
        path=path,
        name=str(manifest.about.get("name") or path.resolve().name),
        target="openvino" if (path / OPENVINO_FILES[0]).exists() else "tensorrt-llm",
        architecture=str(model.get("architecture", "")),
        max_batch_size=_positive(path, build, "max_batch_size"),
        max_seq_len=_positive(path, build, "max_seq_len"),
        max_input_len=_positive(path, build, "max_input_len"),
        max_num_tokens=_positive(path, build, "max_num_tokens"),
        max_beam_width=int(build.get("max_beam_width") or 1),
        tokens_per_block=int(plugins.get("tokens_per_block") or 32),
        paged_context=bool(plugins.get("use_paged_context_fmha", True)),
        logits_dtype="FP16" if model.get("logits_dtype") == "float16" else "FP32",
        world_size=int((model.get("mapping") or {}).get("world_size") or 1),
        manifest=manifest,
    )
    _require_files(engine)
    return engine


def _next_step(kind: str) -> str:
    return "build it first: trtbuild build" if kind == "checkpoint" else "give the engine's folder"


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not an engine", found="no config.json", do=_BUILD) from None
    except ValueError as error:
        raise ArtifactError(f"{file} can't be read", found=str(error), do=_BUILD) from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{file} is not an engine's", found="no JSON object", do=_BUILD)
    return config


def _section(path: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise ArtifactError(
            f"{path} is not an engine", found=f"no {name} in config.json", do=_BUILD
        )
    return section


def _positive(path: Path, build: dict[str, Any], name: str) -> int:
    value = build.get(name)
    if not isinstance(value, int) or value < 1:
        raise ArtifactError(
            f"{path}: config.json: build_config.{name} must be a positive number",
            found=repr(value),
            do=_BUILD,
        )
    return value


def _require_files(engine: Engine) -> None:
    ranks = tuple(f"rank{rank}.engine" for rank in range(engine.world_size))
    wanted = OPENVINO_FILES if engine.target == "openvino" else ranks
    missing = [name for name in wanted if not (engine.path / name).is_file()]
    if missing:
        raise ArtifactError(
            f"{engine.path} is not a whole engine", found=f"no {', '.join(missing)}", do=_BUILD
        )
    if not (engine.path / TOKENIZER).is_file():
        raise ArtifactError(
            f"{engine.path} has no tokenizer",
            found=f"no {TOKENIZER}",
            do="convert the model again: the tokenizer files travel with the checkpoint",
        )
