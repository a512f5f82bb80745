"""What a repository needs to know of an engine folder, read from its `config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.manifest import Manifest
from builder.targets.tensorrt_llm.speculative_modes import SPECULATIVE_MODES

TOKENIZER = "tokenizer.json"
OPENVINO_FILES = ("openvino_model.xml", "openvino_model.bin")
_BUILD = "build it with trtbuild build"
_SPECULATIVE = {number: mode for mode, number in SPECULATIVE_MODES.items()}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine's limits (tokens, requests) and what it was built for.

    `paged_context` is paged context attention, which reusing and chunking prompts need.
    `speculative_mode` is one of SPECULATIVE_MODES; `lora` says whether adapters can be applied, to
    `lora_target_modules` and up to `max_lora_rank`. `dtype` is the weights'.
    """

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
    tp_size: int
    vocab_size: int
    dtype: str
    paged_kv_cache: bool
    packed_inputs: bool
    attention_sinks: bool
    gather_context_logits: bool
    gather_generation_logits: bool
    max_draft_len: int
    speculative_mode: str
    weight_streaming: bool
    lora: bool
    lora_target_modules: tuple[str, ...]
    max_lora_rank: int
    pretrained_config: Mapping[str, Any]
    manifest: Manifest

    @property
    def reuses_blocks(self) -> bool:
        """Whether prompts can share blocks; upstream's can't in an engine that keeps all logits."""
        keeps_all = self.gather_context_logits and self.target == "tensorrt-llm"
        return self.paged_context and not keeps_all


def read(path: Path) -> Engine:
    """The engine in `path`.

    Raises ArtifactError when the folder is something else, or lacks its engine or tokenizer files.
    """
    manifest = manifests.read(path)
    if manifest.kind != "engine":
        raise ArtifactError(
            f"{path} is not an engine", found=f"a {manifest.kind}", do=_next_step(manifest.kind)
        )
    engine = of_config(path, _config(path), manifest)
    if missing := missing_files(engine):
        raise ArtifactError(
            f"{path} is not a whole engine", found=f"no {', '.join(missing)}", do=_BUILD
        )
    if not (path / TOKENIZER).is_file():
        raise ArtifactError(
            f"{path} has no tokenizer",
            found=f"no {TOKENIZER}",
            do="convert the model again: the tokenizer files travel with the checkpoint",
        )
    return engine


def anyones(path: Path) -> Engine:
    """The engine in `path`, whoever built it, whole or not. Raises ArtifactError for no engine."""
    unknown = Manifest(kind="engine", made_by={}, source={}, options={})
    return of_config(path, _config(path), unknown)


def missing_files(engine: Engine) -> list[str]:
    """The engine's files that aren't there."""
    ranks = tuple(f"rank{rank}.engine" for rank in range(engine.world_size))
    wanted = OPENVINO_FILES if engine.target == "openvino" else ranks
    return [name for name in wanted if not (engine.path / name).is_file()]


def of_config(path: Path, config: dict[str, Any], manifest: Manifest) -> Engine:
    """The engine whose `config.json` is `config`. Raises ArtifactError where it isn't one."""
    build = _section(path, config, "build_config")
    model = _section(path, config, "pretrained_config")
    plugins = build.get("plugin_config") or {}
    mapping = model.get("mapping") or {}
    modules = tuple((build.get("lora_config") or {}).get("lora_target_modules") or ())
    return Engine(
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
        world_size=int(mapping.get("world_size") or 1),
        tp_size=int(mapping.get("tp_size") or 1),
        vocab_size=int(model.get("vocab_size") or 0),
        dtype=str(model.get("dtype") or ""),
        paged_kv_cache=str(build.get("kv_cache_type") or "PAGED").upper() == "PAGED",
        packed_inputs=bool(plugins.get("remove_input_padding", True)),
        attention_sinks=bool(plugins.get("streamingllm")),
        gather_context_logits=bool(build.get("gather_context_logits")),
        gather_generation_logits=bool(build.get("gather_generation_logits")),
        max_draft_len=int(build.get("max_draft_len") or 0),
        speculative_mode=_SPECULATIVE.get(build.get("speculative_decoding_mode") or 1, "none"),
        weight_streaming=bool(build.get("weight_streaming")),
        lora=bool(modules),
        lora_target_modules=modules,
        max_lora_rank=int((build.get("lora_config") or {}).get("max_lora_rank") or 0),
        pretrained_config=model,
        manifest=manifest,
    )


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
