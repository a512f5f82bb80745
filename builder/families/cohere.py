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
    UNUSED,
)
from builder.families.qwen3 import GROUPED_QUERIES
from builder.families.table import Constant, Family, Part, Row, Split

COHERE = Family(
    architectures=("CohereForCausalLM",),
    rows=(
        *EMBEDDINGS,
        NORMS[0],
        *ATTENTION,
        *ATTENTION_BIAS,
        *(
            Row(
                name=f"transformer.layers.{{i}}.attention.{name}_layernorm.weight",
                parts=(Part(f"model.layers.{{i}}.self_attn.{name}_norm.weight", (heads, "d")),),
                split=split,
                when={"qk_layernorm": True},
            )
            for name, heads, split in (("q", "H", Split.ROWS), ("k", "K", Split.KV_HEADS))
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
        Field("tie_word_embeddings", ("tie_word_embeddings",), bool, default=True),
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
