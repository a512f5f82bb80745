"""An engine's `config.json`, whoever built it, as fields by dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.source.huggingface import read_json
from builder.targets.llmapi.model import HfModel
from builder.targets.tensorrt_llm.speculative_modes import SPECULATIVE_MODES

CONFIG = "config.json"
PLUGINS = "build_config.plugin_config."


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine's config.json by dotted names, and what its manifest says."""

    path: Path
    fields: Mapping[str, Any]
    target: str = "tensorrt-llm"
    name: str | None = None
    lora: bool = False


def open_engine(path: Path) -> Engine:
    """An engine of ours or of trtllm-build's own, by its config.json.

    Raises ArtifactError for a folder that isn't one.
    """
    known = manifests.read(path) if (path / manifests.NAME).is_file() else None
    if known is not None and (known.kind != "engine" or known.options.get("target") == "llmapi"):
        llm = known.kind == "engine"
        raise ArtifactError(
            f"{path} is not an engine",
            found="a folder for the LLM API" if llm else f"a {known.kind}",
            do="it needs no migration" if llm else "give the engine's folder",
        )
    config = read_json(path / CONFIG) if (path / CONFIG).is_file() else {}
    if not all(
        isinstance(config.get(name), dict) for name in ("pretrained_config", "build_config")
    ):
        raise ArtifactError(
            f"{path} is not an engine",
            found=f"no {CONFIG} with pretrained_config and build_config",
            do="give the folder that trtllm-build or trtbuild build wrote",
        )
    fields = dict(_flat(config))
    mode = "build_config.speculative_decoding_mode"
    if mode in fields:
        fields[mode] = _mode(fields[mode])
    lora = fields.get(PLUGINS + "lora_plugin") or fields.get("build_config.lora_config.lora_dir")
    return Engine(
        path=path,
        fields=fields,
        target=str(known.options.get("target")) if known else "tensorrt-llm",
        name=str(known.about["name"]) if known and known.about.get("name") else None,
        lora=bool(lora),
    )


_WHOLE = ("trtllm_modules_to_hf_modules", "command", "auto_parallel_config")
"""Objects that are one field's value."""


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field by its dotted name; `version` is the file's own."""
    for name, value in config.items():
        if isinstance(value, Mapping) and name not in _WHOLE:
            yield from _flat(value, f"{prefix}{name}.")
        elif prefix or name != "version":
            yield prefix + name, value


def _mode(value: Any) -> Any:
    """A speculative mode's name, of the bit or the name that is stored."""
    for name, bit in SPECULATIVE_MODES.items():
        if type(value) is int and value == bit:
            return name
    return value.lower() if isinstance(value, str) else value


def refuse_another(engine: Engine, model: HfModel) -> None:
    """Refuse a model folder that the engine can't have come from."""
    inner = model.fields.get("text_config") or model.fields
    for name, found in (
        ("num_hidden_layers", model.layers),
        ("num_attention_heads", model.heads),
        ("hidden_size", inner.get("hidden_size")),
    ):
        built = engine.fields.get(f"pretrained_config.{name}")
        if built is not None and found is not None and built != found:
            raise ArtifactError(
                f"{model.path} is not the model of {engine.path}",
                found=f"{name} {found} where the engine has {built}",
                do="give the Hugging Face folder that the engine was made from",
            )
