"""The checkpoint's config.json: TensorRT-LLM 1.2's `PretrainedConfig`, from a ModelConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder import families
from builder.families import Constant, Present
from builder.mapping import Layout
from builder.source import ModelConfig


def pretrained_config(config: ModelConfig, dtype: str, layout: Layout) -> dict[str, Any]:
    """The fields of config.json, but for `quantization`.

    A sliding window is carried twice: as `sliding_window`, for readers that must know of it, and
    as the runtime default that TensorRT-LLM's executor takes: a window for each layer, from the
    first again where the list ends.
    """
    family = families.of(config.architecture)
    values = config.values()
    fields = _filled(family.config, values)
    layout = layout.of(family)
    fields |= {
        "dtype": dtype,
        "logits_dtype": "float32",
        "use_parallel_embedding": layout.parallel_embedding,
        "embedding_sharding_dim": layout.embedding_sharding_dim,
        "mapping": layout.mapping(),
    }
    window = values.get("max_attention_window")
    if config.sliding_window and window is None:
        window = [config.sliding_window]
    if window:
        fields["runtime_defaults"] = {"kv_cache_config": {"max_attention_window": window}}
    return fields


def _filled(table: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A table of config fields with the attributes' values in place of their names."""
    fields: dict[str, Any] = {}
    for name, entry in table.items():
        if isinstance(entry, Mapping):
            fields[name] = _filled(entry, values)
        elif isinstance(entry, Constant):
            fields[name] = entry.value
        elif not isinstance(entry, Present):
            fields[name] = values[entry]
        elif values.get(entry.attribute) is not None:
            fields[name] = values[entry.attribute]
    return fields
