"""Tiny models of the families with experts, of sizes that differ, so that a mix-up shows.

Their weights are float32 but exact in bfloat16, so that rounding before or after some arithmetic
is the same.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import random_model

SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LONG_ROPE = {
    "type": "longrope",
    "short_factor": [1.0 + 0.02 * i for i in range(8)],
    "long_factor": [2.0 + 0.1 * i for i in range(8)],
    "short_mscale": 1.1,
    "long_mscale": 1.25,
    "original_max_position_embeddings": 64,
}
DBRX: dict[str, Any] = {
    "vocab_size": 384,
    "d_model": 64,
    "n_layers": 2,
    "n_heads": 4,
    "max_seq_len": 128,
    "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.4, "rope_theta": 500000.0},
    "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
}
QWEN2_MOE: dict[str, Any] = {
    **SIZES,
    "intermediate_size": 112,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 80,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
QWEN3_MOE: dict[str, Any] = {
    **SIZES,
    "intermediate_size": 112,
    "moe_intermediate_size": 48,
    "head_dim": 32,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
GRANITE_MOE: dict[str, Any] = {
    **SIZES,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.125,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
PHI_MOE: dict[str, Any] = {
    **SIZES,
    "num_local_experts": 4,
    "attention_bias": True,
    "lm_head_bias": True,
    "router_jitter_noise": 0.02,
}

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "mixtral_head": ("Mixtral", {**SIZES, "num_local_experts": 4, "head_dim": 24}),
    "granite_moe": ("GraniteMoe", GRANITE_MOE),
    "granite_moe_bias": (
        "GraniteMoe",
        {**GRANITE_MOE, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "qwen2_moe": ("Qwen2Moe", QWEN2_MOE),
    "qwen2_moe_norm": ("Qwen2Moe", {**QWEN2_MOE, "norm_topk_prob": True, "qkv_bias": False}),
    "qwen3_moe": ("Qwen3Moe", QWEN3_MOE),
    "qwen3_moe_norm": ("Qwen3Moe", {**QWEN3_MOE, "norm_topk_prob": True}),
    "phi_moe": ("Phimoe", PHI_MOE),
    "phi_moe_long": ("Phimoe", {**PHI_MOE, "rope_scaling": LONG_ROPE}),
    "dbrx": ("Dbrx", DBRX),
}
"""Name → transformers' class prefix and its config's fields."""


def save(folder: Path, name: str, tokenizer: Path) -> Path:
    """Write the model called `name` to `folder`, in Hugging Face's form, with a tokenizer."""
    kind, fields = TINY[name]
    return random_model.save(folder, kind, fields, tokenizer, prepare=_randomize)


def _randomize(model: Any) -> None:
    """Norms and biases start as ones and zeros, some experts as what the memory held."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            fresh = torch.randn_like(parameter) * 0.1
            fresh += parameter if parameter.dim() == 1 else 0
            parameter.copy_(fresh.to(torch.bfloat16))


def save_deepseek(folder: Path, tokenizer: Path) -> Path:
    """Write a model of DeepSeek's first mixture, which transformers doesn't have.

    Beside it, in `folder`/twin, stands a Qwen2-MoE model that computes the same: its first layer
    is dense, and its shared expert's gate is zero, which halves the doubled last matrix.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers
        from safetensors.torch import save_file

        torch.manual_seed(1)
        config = transformers.Qwen2MoeConfig(
            **QWEN2_MOE
            | {"shared_expert_intermediate_size": 96, "mlp_only_layers": [0], "qkv_bias": False}
        )
        twin = transformers.Qwen2MoeForCausalLM(config)
        _randomize(twin)
        for name, parameter in twin.named_parameters():
            if name.endswith("shared_expert_gate.weight"):
                parameter.data.zero_()
        twin.save_pretrained(folder / "twin")
    tensors = {}
    for name, tensor in twin.state_dict().items():
        if name.endswith("shared_expert_gate.weight"):
            continue
        half = 0.5 if name.endswith("shared_expert.down_proj.weight") else 1.0
        tensors[name.replace("shared_expert.", "shared_experts.")] = (tensor * half).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    (folder / "config.json").write_text(json.dumps(deepseek_config(), indent=2))
    return folder


def deepseek_config() -> dict[str, Any]:
    """The config.json of `save_deepseek`'s model, in the published model's words."""
    return {
        "architectures": ["DeepseekForCausalLM"],
        "model_type": "deepseek",
        **SIZES,
        "intermediate_size": QWEN2_MOE["intermediate_size"],
        "moe_intermediate_size": 48,
        "n_routed_experts": 4,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
