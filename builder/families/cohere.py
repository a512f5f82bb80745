"""Command R: attention and MLP beside each other on one LayerNorm without bias, logits scaled.

Names and fields: TensorRT-LLM's `models/commandr/{config,model}.py`. Neighbouring elements are
rotated together, as in GPT-J. Command R+ normalises each head of q and k with weights of its own.
"""

from __future__ import annotations

from builder.families.fields import Field, Unfit
from builder.families.llama import (
    ATTENTION,
    ATTENTION_BIAS,
    CONFIG,
    EMBEDDINGS,
    MLP,
    NORMS,
    SELF_ATTENTION,
    UNUSED,
)
from builder.families.qwen3 import GROUPED_QUERIES
from builder.families.rows import TIED, weight
from builder.families.table import Constant, Family, Split

_NORMED = {"qk_layernorm": True}

COHERE = Family(
    architectures=("CohereForCausalLM",),
    rows=(
        *EMBEDDINGS,
        NORMS[0],
        *ATTENTION,
        *ATTENTION_BIAS,
        *weight(
            "attention.q_layernorm", SELF_ATTENTION + "q_norm", ("H", "d"), Split.ROWS, _NORMED
        ),
        *weight(
            "attention.k_layernorm", SELF_ATTENTION + "k_norm", ("K", "d"), Split.KV_HEADS, _NORMED
        ),
        *MLP,
    ),
    config={
        **CONFIG,
        "position_embedding_type": Constant(value="rope_gptj"),
        "rotary_scaling": Constant(value=None),
        "mlp_bias": Constant(value=False),
        "qk_layernorm": "qk_layernorm",
        "output_multiplier_scale": "output_multiplier_scale",
    },
    fields=(
        TIED,
        Field("qk_layernorm", ("use_qk_norm",), bool, default=False),
        Field("output_multiplier_scale", ("logit_scale",), float, default=0.0625),
        Field("norm_epsilon", ("layer_norm_eps",), float, default=1e-5),
    ),
    unfit=(
        Unfit(
            GROUPED_QUERIES.attributes,
            lambda values: values["qk_layernorm"] and GROUPED_QUERIES.found(values),
            GROUPED_QUERIES.reason,
        ),
    ),
    unused=UNUSED,
)
