"""Tiny models of the families before Llama and of those that share their classes.

Their weights are float32 but exact in bfloat16, so that rounding before or after some arithmetic
is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from random_model import perturb_in_bfloat16 as perturb
from random_model import save as save_random

GPT: dict[str, Any] = {
    "vocab_size": 385,
    "n_positions": 65,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODERN: dict[str, Any] = {
    "vocab_size": 385,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FALCON: dict[str, Any] = {
    "vocab_size": 385,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NEW_FALCON = {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}
OPT: dict[str, Any] = {
    "vocab_size": 385,
    "hidden_size": 64,
    "ffn_dim": 96,
    "max_position_embeddings": 65,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
MPT: dict[str, Any] = {
    "vocab_size": 385,
    "d_model": 96,
    "n_heads": 6,
    "n_layers": 2,
    "max_seq_len": 128,
}
NEOX: dict[str, Any] = {**FALCON, "intermediate_size": 256, "rotary_pct": 0.5}

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {**GPT, "n_inner": 96}),
    "gpt2_untied": ("GPT2", {**GPT, "tie_word_embeddings": False}),
    "gpt_bigcode": ("GPTBigCode", GPT),
    "gpt_bigcode_heads": ("GPTBigCode", {**GPT, "multi_query": False}),
    "starcoder2": ("Starcoder2", {**MODERN, "rope_theta": 100000.0}),
    "starcoder2_window": ("Starcoder2", {**MODERN, "use_bias": False, "sliding_window": 16}),
    "nemotron": ("Nemotron", {**MODERN, "head_dim": 32}),
    "gptj": ("GPTJ", {**GPT, "rotary_dim": 8}),
    "gpt_neox": ("GPTNeoX", {**NEOX, "rotary_emb_base": 5000}),
    "falcon_7b": ("Falcon", FALCON),
    "falcon_40b": ("Falcon", NEW_FALCON),
    "falcon_11b": (
        "Falcon",
        {**NEW_FALCON, "num_ln_in_parallel_attn": 1, "tie_word_embeddings": False},
    ),
    "falcon_rw": (
        "Falcon",
        {**FALCON, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
    ),
    "falcon_bias": ("Falcon", {**FALCON, "bias": True}),
    "opt": ("OPT", OPT),
    "opt_after": ("OPT", {**OPT, "do_layer_norm_before": False}),
    "bloom": ("Bloom", {"vocab_size": 385, "hidden_size": 96, "n_layer": 2, "n_head": 6}),
    "mpt": ("Mpt", MPT),
    "mpt_clipped": ("Mpt", {**MPT, "attn_config": {"clip_qkv": 0.5}}),
}
"""Name → transformers' class prefix and the fields of its config."""


def save(folder: Path, name: str, tokenizer: Path) -> Path:
    """Write the model called `name` to `folder`, in Hugging Face's form, with a tokenizer."""
    kind, fields = TINY[name]
    return save_random(folder, kind, fields, tokenizer, prepare=perturb)
