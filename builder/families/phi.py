"""Phi-1.5 and Phi-2: attention and MLP beside each other on one LayerNorm, with biases everywhere.

Names and fields: TensorRT-LLM's `models/phi/{config,model,convert}.py`. Its class takes few
liberties: as many key-value heads as heads, and LayerNorm's own epsilon.
"""

from __future__ import annotations

from builder.families.fields import Field, Refused, Unfit
from builder.families.llama import CONFIG, SELF_ATTENTION, UNUSED
from builder.families.rows import LAYER, embeddings, linear, norm, separate_qkv, tensor
from builder.families.table import Constant, Family, Split, Stage

_HF = "model.layers.{i}."

LM_HEAD_BIAS = tensor("lm_head.bias", "lm_head.bias", ("V",), Split.VOCABULARY, stage=Stage.LAST)
HEAD_SIZE = Unfit(
    ("hidden_size", "num_attention_heads", "head_size"),
    lambda values: values["head_size"] * values["num_attention_heads"] != values["hidden_size"],
    "TensorRT-LLM's class divides the hidden size by the heads",
)

PHI = Family(
    architectures=("PhiForCausalLM",),
    rows=(
        *embeddings("model.embed_tokens"),
        *LM_HEAD_BIAS,
        *norm("transformer.ln_f", "model.final_layernorm", stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "input_layernorm"),
        *separate_qkv(SELF_ATTENTION),
        *separate_qkv(SELF_ATTENTION, "bias"),
        *linear("attention.dense", SELF_ATTENTION + "dense", ("D", "Hd"), Split.COLUMNS),
        *linear("mlp.fc", _HF + "mlp.fc1", ("I", "D"), Split.ROWS),
        *linear("mlp.proj", _HF + "mlp.fc2", ("D", "I"), Split.COLUMNS),
    ),
    config={
        **{name: entry for name, entry in CONFIG.items() if name not in ("attn_bias", "mlp_bias")},
        "rotary_scaling": Constant(value=None),
        "rotary_pct": "rotary_pct",
    },
    fields=(
        Field(
            "rotary_pct",
            ("rope_parameters.partial_rotary_factor", "partial_rotary_factor"),
            float,
            default=0.5,
        ),
        Field(
            "norm_epsilon",
            ("layer_norm_eps",),
            float,
            default=1e-5,
            only=(1e-5,),
        ),
    ),
    refused=(Refused("qk_layernorm", (False,), "TensorRT-LLM's class has no norm over q and k"),),
    unfit=(
        HEAD_SIZE,
        Unfit(
            ("num_attention_heads", "num_key_value_heads"),
            lambda values: values["num_attention_heads"] != values["num_key_value_heads"],
            "TensorRT-LLM's class has as many key-value heads as heads",
        ),
    ),
    unused=UNUSED,
    pipeline=False,
)
