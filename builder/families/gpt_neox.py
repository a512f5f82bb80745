"""GPT-NeoX and Pythia: attention and MLP side by side, each after a norm of its own.

Names and fields: TensorRT-LLM's `models/gptneox/model.py` and its converter. The class keeps
Hugging Face's name of the second norm, and calls the rotary base otherwise than the others.
"""

from __future__ import annotations

from builder.families.fields import Field, Refused
from builder.families.rows import (
    FOUR_TIMES_WIDE,
    GROUPED,
    LAYER,
    SIZES,
    activation,
    embeddings,
    linear,
    norm,
    qkv,
    qkv_bias,
)
from builder.families.table import Constant, Family, Split, Stage

_HF = "layers.{i}."

GPT_NEOX = Family(
    architectures=("GPTNeoXForCausalLM",),
    rows=(
        *embeddings("embed_in", "embed_out"),
        *norm("transformer.ln_f", "final_layer_norm", stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "input_layernorm"),
        *norm(LAYER + "post_attention_layernorm", _HF + "post_attention_layernorm"),
        *qkv(_HF + "attention.query_key_value", fused=GROUPED),
        *qkv_bias(_HF + "attention.query_key_value", fused=GROUPED),
        *linear("attention.dense", _HF + "attention.dense", ("D", "D"), Split.COLUMNS),
        *linear("mlp.fc", _HF + "mlp.dense_h_to_4h", ("I", "D"), Split.ROWS),
        *linear("mlp.proj", _HF + "mlp.dense_4h_to_h", ("D", "I"), Split.COLUMNS),
    ),
    config={
        **SIZES,
        "position_embedding_type": Constant(value="rope_gpt_neox"),
        "rotary_pct": "rotary_pct",
        "rotary_base": "rotary_base",
        "rotary_emb_base": "rotary_base",
    },
    fields=(
        activation("hidden_act", "gelu"),
        Field("norm_epsilon", ("layer_norm_eps",), float, default=1e-5, only=(1e-5,)),
        Field("attn_bias", (), bool, default=False),
        Field(
            "rotary_pct",
            ("rotary_pct", "rope_parameters.partial_rotary_factor"),
            float,
            default=0.25,
        ),
        Field(
            "rotary_base",
            ("rotary_emb_base", "rope_theta", "rope_parameters.rope_theta"),
            float,
            default=10000.0,
        ),
    ),
    refused=(
        Refused("use_parallel_residual", (True,), "attention and MLP are always side by side"),
        Refused("attention_bias", (True,), "attention always has biases"),
    ),
    unfit=(FOUR_TIMES_WIDE,),
    unused=("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq"),
    unused_when_tied=("embed_out.weight",),
    prefixes=("gpt_neox.",),
    pipeline=False,
)
