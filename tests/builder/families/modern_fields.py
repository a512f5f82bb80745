"""config.json of the newer dense families, as their publishers write it, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_files import FIELDS

from builder.checkpoint_config import pretrained_config
from builder.mapping import Layout
from builder.source.hf_config import model_config

CHATGLM: dict[str, Any] = {
    "architectures": ["ChatGLMModel"],
    "num_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "kv_channels": 16,
    "padded_vocab_size": 384,
    "seq_length": 256,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "post_layer_norm": True,
    "rmsnorm": True,
    "torch_dtype": "bfloat16",
}


def plain(architecture: str, **fields: Any) -> dict[str, Any]:
    """A small model's, with what most architectures share."""
    return {**FIELDS, "architectures": [architecture], **fields}


def gemma(generation: str, **fields: Any) -> dict[str, Any]:
    """A small Gemma's; `generation` is "", "2" or "3"."""
    common = without(plain(f"Gemma{generation}ForCausalLM"), "hidden_act", "rope_theta")
    return {**common, "head_dim": 16, **fields}


def baichuan(heads: int, **fields: Any) -> dict[str, Any]:
    """A Baichuan's of any width."""
    return {
        **without(plain("BaichuanForCausalLM"), "num_key_value_heads", "rope_theta"),
        "num_attention_heads": heads,
        "hidden_size": heads * 2,
        **fields,
    }


def without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The fields but for some."""
    return {name: value for name, value in fields.items() if name not in names}


def read(fields: Mapping[str, Any], layout: Layout | None = None) -> dict[str, Any]:
    """The checkpoint's config.json of a model with these fields."""
    config = model_config(Path("config.json"), dict(fields), "bfloat16")
    return pretrained_config(config, "bfloat16", layout or Layout())
