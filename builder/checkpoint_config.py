"""The checkpoint's config.json: TensorRT-LLM 1.2's `PretrainedConfig`, from a ModelConfig."""

from __future__ import annotations

from typing import Any

from builder.families import Constant, Family
from builder.source import ModelConfig


def pretrained_config(config: ModelConfig, family: Family, dtype: str) -> dict[str, Any]:
    """The fields of config.json for an unquantized checkpoint of one rank.

    A sliding window is carried twice: as `sliding_window`, for readers that must know of it, and
    as the runtime default that TensorRT-LLM's executor takes.
    """
    fields: dict[str, Any] = {
        name: value.value if isinstance(value, Constant) else getattr(config, value)
        for name, value in family.config.items()
    }
    fields |= {
        "dtype": dtype,
        "logits_dtype": "float32",
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    }
    if config.sliding_window:
        window = [config.sliding_window]
        fields["runtime_defaults"] = {"kv_cache_config": {"max_attention_window": window}}
    return fields
