"""The checkpoint's config.json: TensorRT-LLM 1.2's `PretrainedConfig`, from a ModelConfig."""

from __future__ import annotations

from typing import Any

from builder import families
from builder.families import Constant
from builder.mapping import Layout
from builder.source import ModelConfig


def pretrained_config(config: ModelConfig, dtype: str, layout: Layout) -> dict[str, Any]:
    """The fields of config.json for an unquantized checkpoint.

    A sliding window is carried twice: as `sliding_window`, for readers that must know of it, and
    as the runtime default that TensorRT-LLM's executor takes.
    """
    family = families.of(config.architecture)
    fields: dict[str, Any] = {
        name: value.value if isinstance(value, Constant) else getattr(config, value)
        for name, value in family.config.items()
    }
    fields |= {
        "dtype": dtype,
        "logits_dtype": "float32",
        "use_parallel_embedding": layout.parallel_embedding,
        "embedding_sharding_dim": 0,
        "mapping": {
            "world_size": layout.world_size,
            "tp_size": layout.tp,
            "pp_size": layout.pp,
        },
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    }
    if config.sliding_window:
        window = [config.sliding_window]
        fields["runtime_defaults"] = {"kv_cache_config": {"max_attention_window": window}}
    return fields
