"""Public models: their config.json, and what is published of their size.

`weights_bytes` are the totals of the models' safetensors indexes (Gemma 2: its 27,227,128,320
parameters in bfloat16), `kv_bytes` 2 * layers * key-value heads * head size * 2 bytes by hand, as
published for instance for Llama 3 70B: 320 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.checkpoint_config import pretrained_config
from builder.mapping import Layout
from builder.source.hf_config import model_config


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model and what is said of it, in bytes."""

    fields: dict[str, Any]
    weights_bytes: int
    kv_bytes: int


_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
MODELS = {
    "Llama-3.1-8B": Published(
        fields={
            **_LLAMA,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
        },
        weights_bytes=16_060_522_496,
        kv_bytes=128 << 10,
    ),
    "Llama-3.1-70B": Published(
        fields={
            **_LLAMA,
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
        },
        weights_bytes=141_107_412_992,
        kv_bytes=320 << 10,
    ),
    "Qwen2.5-72B": Published(
        fields={
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_act": "silu",
            "hidden_size": 8192,
            "intermediate_size": 29568,
            "max_position_embeddings": 32768,
            "max_window_layers": 70,
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "sliding_window": 131072,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 152064,
        },
        weights_bytes=145_412_407_296,
        kv_bytes=320 << 10,
    ),
    "Mixtral-8x7B": Published(
        fields={
            "architectures": ["MixtralForCausalLM"],
            "hidden_act": "silu",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "num_attention_heads": 32,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 32000,
        },
        weights_bytes=93_405_585_408,
        kv_bytes=128 << 10,
    ),
    "Gemma-2-27B": Published(
        fields={
            "architectures": ["Gemma2ForCausalLM"],
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "head_dim": 128,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": 4608,
            "intermediate_size": 36864,
            "max_position_embeddings": 8192,
            "num_attention_heads": 32,
            "num_hidden_layers": 46,
            "num_key_value_heads": 16,
            "query_pre_attn_scalar": 144,
            "rms_norm_eps": 1e-06,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "torch_dtype": "bfloat16",
            "vocab_size": 256000,
        },
        weights_bytes=2 * 27_227_128_320,
        kv_bytes=368 << 10,
    ),
}
LLAMA_2_7B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}


def checkpoint(
    model: str | dict[str, Any], layout: Layout | None = None, **quantization: Any
) -> dict[str, Any]:
    """The config.json of the model's checkpoint; `model` is a name in MODELS or a config."""
    fields = MODELS[model].fields if isinstance(model, str) else model
    config = model_config(Path("config.json"), fields, "bfloat16")
    dtype = fields["torch_dtype"]
    return {
        **pretrained_config(config, dtype, layout or Layout()),
        "quantization": quantization,
    }
