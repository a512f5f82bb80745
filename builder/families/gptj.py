"""GPT-J: attention and MLP side by side after one norm, and a head with a bias.

Names and fields: TensorRT-LLM's `models/gptj/{config,convert,model}.py`. Its class sums both
halves over the ranks at once, after each rank has added the MLP's bias: only the first rank may
have it.
"""

from __future__ import annotations

from builder.families.fields import Field, Unfit
from builder.families.gpt2 import INNER
from builder.families.rows import (
    FIXED_EPSILON,
    FOUR_TIMES_WIDE,
    LAYER,
    SIZES,
    activation,
    bias,
    embeddings,
    norm,
    separate_qkv,
    tensor,
    weight,
)
from builder.families.table import Constant, Family, Split, Stage

_HF = "h.{i}."

GPTJ = Family(
    architectures=("GPTJForCausalLM",),
    rows=(
        *embeddings("wte"),
        *tensor("lm_head.bias", "lm_head.bias", ("V",), Split.VOCABULARY, stage=Stage.LAST),
        *norm("transformer.ln_f", "ln_f", stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "ln_1"),
        *separate_qkv(_HF + "attn."),
        *weight("attention.dense", _HF + "attn.out_proj", ("D", "D"), Split.COLUMNS),
        *weight("mlp.fc", _HF + "mlp.fc_in", ("I", "D"), Split.ROWS),
        *bias("mlp.fc", _HF + "mlp.fc_in", "I", Split.ROWS),
        *weight("mlp.proj", _HF + "mlp.fc_out", ("D", "I"), Split.COLUMNS),
        *bias("mlp.proj", _HF + "mlp.fc_out", "D", Split.FIRST_RANK),
    ),
    config={
        **SIZES,
        "position_embedding_type": Constant(value="rope_gptj"),
        "rotary_dim": "rotary_dim",
        "rotary_embedding_dim": "rotary_dim",
        "rotary_base": Constant(value=10000.0),
    },
    fields=(
        INNER,
        FIXED_EPSILON,
        activation("activation_function", "gelu_new"),
        Field("rotary_dim", ("rotary_dim",), default=64, null=True),
    ),
    unfit=(
        FOUR_TIMES_WIDE,
        Unfit(
            ("rotary_dim", "head_size"),
            lambda values: not 0 < (values["rotary_dim"] or 0) <= values["head_size"],
            "the rotated part of a head must be a part of it",
        ),
    ),
    unused=("*.attn.bias", "*.attn.masked_bias", "*.attn.embed_positions"),
    prefixes=("transformer.",),
    pipeline=False,
)
