"""Tiny models of the newer dense families, as transformers makes them.

Their weights are float32 but exact in bfloat16, so that rounding before or after some arithmetic
is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from random_model import LLAMA3_ROPE
from random_model import perturb_in_bfloat16 as perturb
from random_model import save as save_random

SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 64, "tie_word_embeddings": True}
LONG = {"type": "longrope", "short_factor": [1.0 + n / 16 for n in range(12)]}
LONG["long_factor"] = [2.0 + n / 4 for n in range(12)]
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("Gemma", {**GEMMA, "num_key_value_heads": 1}),
    "gemma_untied": ("Gemma", {**GEMMA, "tie_word_embeddings": False}),
    "gemma2": (
        "Gemma2",
        {
            **GEMMA,
            "query_pre_attn_scalar": 96,
            "sliding_window": 16,
            "final_logit_softcapping": 3.0,
            "attn_logit_softcapping": 5.0,
        },
    ),
    "gemma2_uncapped": (
        "Gemma2",
        {
            **GEMMA,
            "sliding_window": 16,
            "final_logit_softcapping": None,
            "attn_logit_softcapping": None,
        },
    ),
    "gemma3": (
        "Gemma3",
        {
            **GEMMA,
            "num_hidden_layers": 4,
            "query_pre_attn_scalar": 96,
            "sliding_window": 16,
            "sliding_window_pattern": 3,
            "rope_local_base_freq": 100.0,
        },
    ),
    "phi": ("Phi", {"num_key_value_heads": None, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {"sliding_window": None}),
    "phi3_long": (
        "Phi3",
        {
            "original_max_position_embeddings": 128,
            "rope_scaling": LONG,
            "partial_rotary_factor": 0.75,
            "tie_word_embeddings": True,
        },
    ),
    "cohere": ("Cohere", {"logit_scale": 0.25, "layer_norm_eps": 1e-5}),
    "cohere_norm": ("Cohere", {"use_qk_norm": True, "attention_bias": True}),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.25,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
            "mlp_bias": True,
            "rope_scaling": LLAMA3_ROPE,
        },
    ),
    "glm": ("Glm", {"head_dim": 32, "attention_bias": True, "partial_rotary_factor": 0.5}),
}
"""Name → transformers' class prefix, and what differs from SIZES."""


def save(folder: Path, name: str, tokenizer: Path) -> Path:
    """Write the model called `name` to `folder`, in Hugging Face's form, with a tokenizer."""
    kind, changes = TINY[name]
    return save_random(folder, kind, {**SIZES, **changes}, tokenizer, prepare=perturb)
