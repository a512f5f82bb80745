"""Checkpoint configs of well-known models, from what their publishers' config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.checkpoint_config import pretrained_config
from builder.mapping import Layout
from builder.source.hf_config import model_config

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _fields(
    architecture: str, layers: int, hidden: int, inner: int, heads: int, kv: int, **more: Any
) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        **more,
    }


_LLAMA3 = {
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": LLAMA3_ROPE,
}
_GEMMA2 = {
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "head_dim": 128,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 144,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
HUGGINGFACE: Mapping[str, dict[str, Any]] = {
    "llama-3.1-8b": _fields("LlamaForCausalLM", 32, 4096, 14336, 32, 8, **_LLAMA3),
    "llama-3.1-70b": _fields("LlamaForCausalLM", 80, 8192, 28672, 64, 8, **_LLAMA3),
    "llama-2-7b": _fields(
        *("LlamaForCausalLM", 32, 4096, 11008, 32, 32),
        vocab_size=32000,
        max_position_embeddings=4096,
    ),
    "mistral-7b": _fields(
        *("MistralForCausalLM", 32, 4096, 14336, 32, 8),
        vocab_size=32768,
        max_position_embeddings=32768,
        rope_theta=1e6,
        sliding_window=None,
    ),
    "mixtral-8x7b": _fields(
        *("MixtralForCausalLM", 32, 4096, 14336, 32, 8),
        vocab_size=32000,
        max_position_embeddings=32768,
        rope_theta=1e6,
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
    "qwen2.5-72b": _fields(
        *("Qwen2ForCausalLM", 80, 8192, 29568, 64, 8),
        vocab_size=152064,
        max_position_embeddings=32768,
        rope_theta=1e6,
    ),
    "qwen3-8b": _fields(
        *("Qwen3ForCausalLM", 36, 4096, 12288, 32, 8),
        vocab_size=151936,
        max_position_embeddings=40960,
        rope_theta=1e6,
        head_dim=128,
    ),
    "gemma-2-27b": _fields("Gemma2ForCausalLM", 46, 4608, 36864, 32, 16, **_GEMMA2),
}
"""Name → the fields of its config.json that TensorRT-LLM's checkpoint depends on."""


def checkpoint(
    name: str,
    quant_algo: str | None = None,
    cache: str | None = None,
    *,
    dtype: str = "bfloat16",
    layout: Layout | None = None,
    **quantization: Any,
) -> dict[str, Any]:
    """A model's checkpoint config.json, quantized so and divided so."""
    model = model_config(Path(name), HUGGINGFACE[name], "bfloat16")
    config = pretrained_config(model, dtype, layout or Layout())
    said = {"quant_algo": quant_algo, "kv_cache_quant_algo": cache, **quantization}
    return {**config, "quantization": said}


MEDUSA: Mapping[str, Any] = {
    "architecture": "MedusaForCausalLM",
    "num_medusa_heads": 4,
    "num_medusa_layers": 1,
    "max_draft_len": 63,
}
EAGLE: Mapping[str, Any] = {
    "architecture": "EagleForCausalLM",
    "num_eagle_layers": 4,
    "max_draft_len": 63,
    "max_non_leaves_per_layer": 10,
}
REDRAFTER: Mapping[str, Any] = {
    "architecture": "ReDrafterForLLaMALM",
    "redrafter_num_beams": 5,
    "redrafter_draft_len_per_beam": 5,
}
"""What upstream's converters write into the config of a Llama with draft heads."""
