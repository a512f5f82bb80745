"""StarCoder2: Llama's attention in TensorRT-LLM's GPT class, with biases and layer norms.

All its layers have the sliding window, if there is one.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.gpt2 import GPT_CONFIG
from builder.families.llama import ATTENTION, SELF_ATTENTION, UNUSED
from builder.families.rows import LAYER, TIED, bias, embeddings, norm, separate_qkv, weight
from builder.families.table import Constant, Family, Split, Stage

_HF = "model.layers.{i}."
_BIASED = {"bias": True}

STARCODER2 = Family(
    architectures=("Starcoder2ForCausalLM",),
    rows=(
        *embeddings("model.embed_tokens"),
        *norm("transformer.ln_f", "model.norm", stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "input_layernorm"),
        *norm(LAYER + "post_layernorm", _HF + "post_attention_layernorm"),
        *ATTENTION,
        *separate_qkv(SELF_ATTENTION, "bias", _BIASED),
        *bias("attention.dense", _HF + "self_attn.o_proj", "D", Split.COPY, _BIASED),
        *weight("mlp.fc", _HF + "mlp.c_fc", ("I", "D"), Split.ROWS),
        *bias("mlp.fc", _HF + "mlp.c_fc", "I", Split.ROWS, _BIASED),
        *weight("mlp.proj", _HF + "mlp.c_proj", ("D", "I"), Split.COLUMNS),
        *bias("mlp.proj", _HF + "mlp.c_proj", "D", Split.COPY, _BIASED),
    ),
    config={
        **GPT_CONFIG,
        "gpt_variant": Constant(value="starcoder2"),
        "bias": "bias",
        "position_embedding_type": Constant(value="rope_gpt_neox"),
        "rotary_base": "rotary_base",
        "rotary_scaling": "rotary_scaling",
        "sliding_window": "sliding_window",
    },
    fields=(
        TIED,
        Field("bias", ("use_bias",), bool, default=True),
        Field("norm_epsilon", ("norm_epsilon",), float),
    ),
    unused=UNUSED,
)
