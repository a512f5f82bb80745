"""What a plan is made for: a model before or after conversion, read without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checkpoint import CONFIG, read_config
from builder.checkpoint_config import pretrained_config
from builder.errors import ArtifactError
from builder.mapping import Layout
from builder.quantized_shapes import form
from builder.source import ModelConfig, hf_config, open_source
from builder.source.hf_quantization import quantization
from builder.source.huggingface import read_json

Config = Mapping[str, Any]

_LIMITS = ("max_batch_size", "max_num_tokens", "max_seq_len")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to plan for.

    `model` is that of a model that is still to be converted: in any layout, and with any recipe
    unless it is already quantized (`quantized`, a checkpoint's `quantization`). `config` is a
    checkpoint's or engine's own, whose layout and quantization stand. `limits` are an engine's.
    """

    path: Path
    kind: str
    model: ModelConfig | None = None
    quantized: Config | None = None
    config: Config | None = None
    limits: Mapping[str, int] | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        own = self.path.resolve()
        return own.stem if own.suffix == ".gguf" else own.name

    @property
    def layout(self) -> Layout | None:
        """Its own, where it is divided already."""
        return None if self.config is None else Layout.of_config(self.config)

    @property
    def quantization(self) -> Config | None:
        """What its `quantization` is or will be, None where a recipe can still be chosen."""
        return self.quantized if self.config is None else self.config.get("quantization") or {}

    @property
    def dtype(self) -> str:
        """Of what stays unquantized, once it is a checkpoint."""
        if self.model is None:
            return str((self.config or {})["dtype"])
        return "float16" if self.model.dtype == "float32" else self.model.dtype

    def checkpoint(self, layout: Layout, quantization: Config) -> dict[str, Any]:
        """The config.json of its checkpoint in a layout, as conversion would write it."""
        if self.model is None:
            return dict(self.config or {})
        config = pretrained_config(self.model, self.dtype, layout)
        return {**config, "quantization": dict(quantization)}


def read(path: Path) -> Subject:
    """The model, checkpoint or engine at `path`; of a folder, config.json is enough.

    Raises ModelError, UnknownFamilyError and ArtifactError, naming the file and the field.
    """
    if not (path / CONFIG).is_file():
        return Subject(path=path, kind="GGUF file", model=open_source(path).config)
    fields = read_json(path / CONFIG)
    if isinstance(fields.get("pretrained_config"), Mapping):
        return _engine(path, fields)
    if isinstance(fields.get("architecture"), str):
        return Subject(path=path, kind="checkpoint", config=read_config(path))
    config = hf_config.model_config(path / CONFIG, fields, "bfloat16")
    found = quantization(path, fields)
    if found is None:
        return Subject(path=path, kind="Hugging Face folder", model=config)
    its = form(found)
    block: dict[str, Any] = {"quant_algo": its.algo, "kv_cache_quant_algo": found.kv_cache}
    block |= {"group_size": its.group_size} if its.group_size else {}
    block |= {"has_zero_point": its.zeros, "pre_quant_scale": its.prequant}
    return Subject(path=path, kind="quantized Hugging Face folder", model=config, quantized=block)


def _engine(path: Path, fields: Mapping[str, Any]) -> Subject:
    build = fields.get("build_config") or {}
    limits = {name: build[name] for name in _LIMITS if type(build.get(name)) is int}
    if lacking := [name for name in _LIMITS if limits.get(name, 0) < 1]:
        raise ArtifactError(
            f"{path / CONFIG} doesn't say what the engine was built for",
            found=f"no {', '.join(lacking)}",
            do="build the engine again",
        )
    return Subject(
        path=path, kind="engine", config=dict(fields["pretrained_config"]), limits=limits
    )
