"""What the families before Llama are told of in a checkpoint's config, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.checkpoint_config import pretrained_config
from builder.errors import ModelError
from builder.mapping import Layout
from builder.source.hf_config import model_config

SIZES = {
    "vocab_size": 100,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "layer_norm_epsilon": 1e-5,
}
PLAIN = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
MPT = {"vocab_size": 100, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 32}
FALCON = {key: value for key, value in PLAIN.items() if key != "intermediate_size"}
OPT = {"ffn_dim": 256, **FALCON}
BLOOM = {"vocab_size": 100, "n_embed": 64, "n_layer": 2, "n_head": 4}
NEMOTRON = {**PLAIN, "hidden_act": "relu2", "norm_eps": 1e-5}
STARCODER2 = {**PLAIN, "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5}
NEOX = {**PLAIN, "layer_norm_eps": 1e-5, "attention_bias": True}


def config_of(architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    fields = {"architectures": [architecture], **fields}
    return pretrained_config(
        model_config(Path("config.json"), fields, "float16"), "float16", Layout()
    )


# What TensorRT-LLM's config classes and converters make of the same fields: models/gpt/config.py,
# models/falcon/config.py, models/gptj/config.py, and the converters of GPT-NeoX, OPT, BLOOM, MPT.
@pytest.mark.parametrize(
    ("architecture", "fields", "wanted"),
    [
        (
            "GPT2LMHeadModel",
            {**SIZES, "n_inner": None},
            {
                "gpt_variant": "gpt2",
                "position_embedding_type": "learned_absolute",
                "intermediate_size": 256,
                "num_key_value_heads": 4,
                "max_position_embeddings": 32,
                "hidden_act": "gelu_new",
                "bias": True,
                "q_scaling": 1.0,
                "apply_query_key_layer_scaling": False,
                "qk_layernorm": False,
            },
        ),
        (
            "GPTBigCodeForCausalLM",
            {**SIZES, "n_inner": 96},
            {"num_key_value_heads": 1, "intermediate_size": 96, "hidden_act": "gelu_pytorch_tanh"},
        ),
        ("GPTBigCodeForCausalLM", {**SIZES, "multi_query": False}, {"num_key_value_heads": 4}),
        (
            "Starcoder2ForCausalLM",
            {**STARCODER2, "num_key_value_heads": 2, "rope_theta": 1e6, "sliding_window": 16},
            {
                "gpt_variant": "starcoder2",
                "position_embedding_type": "rope_gpt_neox",
                "rotary_base": 1e6,
                "rotary_pct": 1.0,
                "bias": True,
                "runtime_defaults": {"kv_cache_config": {"max_attention_window": [16]}},
            },
        ),
        (
            "NemotronForCausalLM",
            {**NEMOTRON, "head_dim": 32},
            {
                "gpt_variant": "nemotron",
                "hidden_act": "squared-relu",
                "rotary_pct": 0.5,
                "bias": False,
                "head_size": 32,
                "norm_epsilon": 1e-5,
                "tie_word_embeddings": False,
            },
        ),
        (
            "GPTJForCausalLM",
            {**SIZES, "rotary_dim": 8},
            {
                "position_embedding_type": "rope_gptj",
                "rotary_dim": 8,
                "max_position_embeddings": 32,
                "hidden_act": "gelu_new",
                "tie_word_embeddings": False,
            },
        ),
        (
            "GPTNeoXForCausalLM",
            {**NEOX, "hidden_act": "gelu_fast", "rotary_pct": 0.5, "rotary_emb_base": 5000},
            {
                "position_embedding_type": "rope_gpt_neox",
                "rotary_pct": 0.5,
                "rotary_emb_base": 5000.0,
                "hidden_act": "gelu_new",
            },
        ),
        (
            "GPTNeoXForCausalLM",
            {**NEOX, "rope_parameters": {"rope_theta": 5e3, "partial_rotary_factor": 0.5}},
            {"rotary_pct": 0.5, "rotary_emb_base": 5000.0},
        ),
        (
            "RWForCausalLM",
            {
                "model_type": "RefinedWebModel",
                "vocab_size": 100,
                "hidden_size": 64,
                "n_layer": 2,
                "n_head": 4,
                "multi_query": True,
                "parallel_attn": True,
                "alibi": False,
                "bias": False,
            },
            {
                "architecture": "FalconForCausalLM",
                "position_embedding_type": "rope_gpt_neox",
                "num_key_value_heads": 1,
                "intermediate_size": 256,
                "max_position_embeddings": 2048,
                "hidden_act": "gelu",
                "bias": False,
                "parallel_attention": True,
                "new_decoder_architecture": False,
                "num_ln_in_parallel_attn": None,
            },
        ),
        (
            "RWForCausalLM",
            {
                "model_type": "RefinedWeb",
                "vocab_size": 100,
                "hidden_size": 64,
                "n_layer": 2,
                "n_head": 4,
                "n_head_kv": 2,
                "parallel_attn": True,
            },
            {
                "num_key_value_heads": 2,
                "new_decoder_architecture": True,
                "num_ln_in_parallel_attn": 2,
            },
        ),
        (
            "FalconForCausalLM",
            {**FALCON, "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False},
            {
                "position_embedding_type": "alibi_with_scale",
                "num_key_value_heads": 4,
                "bias": True,
                "parallel_attention": False,
            },
        ),
        (
            "OPTForCausalLM",
            {**OPT, "word_embed_proj_dim": 64},
            {
                "position_embedding_type": "learned_absolute",
                "do_layer_norm_before": True,
                "hidden_act": "relu",
                "intermediate_size": 256,
            },
        ),
        (
            "BloomForCausalLM",
            {**BLOOM, "seq_length": 512},
            {
                "position_embedding_type": "alibi",
                "hidden_size": 64,
                "intermediate_size": 256,
                "max_position_embeddings": 512,
                "num_key_value_heads": 4,
            },
        ),
        (
            "MPTForCausalLM",
            {**MPT, "attn_config": {"clip_qkv": 6, "alibi": True, "alibi_bias_max": 16}},
            {
                "position_embedding_type": "alibi",
                "clip_qkv": 6.0,
                "alibi_bias_max": 16,
                "bias": False,
                "intermediate_size": 256,
                "hidden_act": "gelu",
                "max_position_embeddings": 32,
            },
        ),
        ("MptForCausalLM", MPT, {"clip_qkv": None, "alibi_bias_max": 8}),
    ],
)
def test_the_config_is_what_tensorrt_llms_classes_read(
    architecture: str, fields: dict[str, Any], wanted: dict[str, Any]
) -> None:
    config = config_of(architecture, fields)
    assert {name: config.get(name, "absent") for name in wanted} == wanted


@pytest.mark.parametrize(
    ("architecture", "fields", "named"),
    [
        ("GPT2LMHeadModel", {**SIZES, "scale_attn_by_inverse_layer_idx": True}, "inverse_layer"),
        ("GPT2LMHeadModel", {**SIZES, "scale_attn_weights": False}, "scale_attn_weights"),
        ("GPT2LMHeadModel", {**SIZES, "add_cross_attention": True}, "cross"),
        ("GPT2LMHeadModel", {**SIZES, "activation_function": "tanh"}, "activation_function"),
        ("Starcoder2ForCausalLM", {**STARCODER2, "partial_rotary_factor": 0.5}, "rotary_pct"),
        ("NemotronForCausalLM", {**NEMOTRON, "attention_bias": True}, "attn_bias"),
        ("NemotronForCausalLM", {**NEMOTRON, "mlp_bias": True}, "mlp_bias"),
        ("NemotronForCausalLM", {**NEMOTRON, "hidden_act": "silu"}, "hidden_act"),
        (
            "NemotronForCausalLM",
            {**NEMOTRON, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rotary_scaling",
        ),
        ("GPTJForCausalLM", {**SIZES, "n_inner": 96}, "four times"),
        ("GPTJForCausalLM", {**SIZES, "rotary_dim": None}, "rotary_dim None"),
        ("GPTJForCausalLM", {**SIZES, "rotary_dim": 32}, "rotary_dim 32"),
        ("GPTJForCausalLM", {**SIZES, "layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ("GPTNeoXForCausalLM", {**NEOX, "use_parallel_residual": False}, "use_parallel_residual"),
        ("GPTNeoXForCausalLM", {**NEOX, "attention_bias": False}, "attention_bias"),
        ("GPTNeoXForCausalLM", {**NEOX, "intermediate_size": 96}, "four times"),
        ("GPTNeoXForCausalLM", {**NEOX, "layer_norm_eps": 1e-6}, "layer_norm_eps"),
        (
            "GPTNeoXForCausalLM",
            {**NEOX, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rotary_scaling",
        ),
        (
            "FalconForCausalLM",
            {**FALCON, "new_decoder_architecture": True, "parallel_attn": False},
            "side by side",
        ),
        ("FalconForCausalLM", {**FALCON, "num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn"),
        ("FalconForCausalLM", {**FALCON, "layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ("OPTForCausalLM", {**OPT, "word_embed_proj_dim": 32}, "word_embed_proj_dim 32"),
        ("OPTForCausalLM", {**OPT, "_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
        ("OPTForCausalLM", {**OPT, "enable_bias": False}, "enable_bias"),
        (
            "OPTForCausalLM",
            {**OPT, "layer_norm_elementwise_affine": False},
            "layer_norm_elementwise_affine",
        ),
        (
            "BloomForCausalLM",
            {**BLOOM, "apply_residual_connection_post_layernorm": True},
            "apply_residual_connection_post_layernorm",
        ),
        ("MPTForCausalLM", {**MPT, "no_bias": False}, "no_bias"),
        ("MPTForCausalLM", {**MPT, "expansion_ratio": 2}, "expansion_ratio"),
        ("MPTForCausalLM", {**MPT, "logit_scale": "inv_sqrt_d_model"}, "logit_scale"),
        ("MPTForCausalLM", {**MPT, "norm_type": "low_precision_rmsnorm"}, "norm_type"),
        *(
            ("MPTForCausalLM", {**MPT, "attn_config": {key: value}}, f"attn_config.{key}")
            for key, value in (
                ("alibi", False),
                ("rope", True),
                ("qk_ln", True),
                ("prefix_lm", True),
                ("attn_uses_sequence_id", True),
                ("softmax_scale", 0.5),
                ("attn_type", "grouped_query_attention"),
                ("kv_n_heads", 2),
                ("sliding_window_size", 16),
            )
        ),
    ],
)
def test_what_the_class_cant_do_is_refused_by_name(
    architecture: str, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=named):
        config_of(architecture, fields)
