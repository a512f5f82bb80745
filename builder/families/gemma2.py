"""Gemma 2: Gemma with two norms more to a layer, capped scores, and a window in every other layer.

TensorRT-LLM's class knows nothing of the windows: they are the runtime's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Unfit
from builder.families.gemma import (
    ACTIVATION,
    EMBEDDINGS_AND_FINAL_NORM,
    GEMMA_CONFIG,
    NORMS,
    plus_one,
)
from builder.families.llama import ATTENTION, MLP, UNUSED
from builder.families.rows import TIED
from builder.families.table import Constant, Family

SANDWICH = (
    *NORMS,
    *plus_one("pre_feedforward_layernorm", "pre_feedforward_layernorm"),
    *plus_one("post_feedforward_layernorm", "post_feedforward_layernorm"),
)

GEMMA2_FIELDS = (
    TIED,
    Field("head_size", ("head_dim",), default=256),
    ACTIVATION,
    Field("query_pre_attn_scalar", ("query_pre_attn_scalar",), default=256),
    Field("sliding_window", ("sliding_window",), default=4096, null=True),
    Field("layer_types", ("layer_types",), list, default=None),
)


def windows(values: Mapping[str, Any], period: int) -> list[int] | None:
    """Tokens that each of `period` layers attends to: all but the last slide."""
    longest = values["max_position_embeddings"]
    if values["sliding_window"] is None:
        return None
    return [min(values["sliding_window"], longest)] * (period - 1) + [longest]


def slides_otherwise(values: Mapping[str, Any], period: int) -> bool:
    """Whether `layer_types` says another order than one full layer after each `period - 1`."""
    wanted = [
        "sliding_attention" if (layer + 1) % period else "full_attention"
        for layer in range(values["num_hidden_layers"])
    ]
    return values["layer_types"] not in (None, wanted)


GEMMA2 = Family(
    architectures=("Gemma2ForCausalLM",),
    rows=(*EMBEDDINGS_AND_FINAL_NORM, *SANDWICH, *ATTENTION, *MLP),
    config={
        **GEMMA_CONFIG,
        "inter_layernorms": Constant(value=True),
        "query_pre_attn_scalar": "query_pre_attn_scalar",
        "final_logit_softcapping": "final_logit_softcapping",
        "attn_logit_softcapping": "attn_logit_softcapping",
    },
    fields=(
        *GEMMA2_FIELDS,
        Field("final_logit_softcapping", ("final_logit_softcapping",), float, 30.0, null=True),
        Field("attn_logit_softcapping", ("attn_logit_softcapping",), float, 50.0, null=True),
    ),
    derived={"max_attention_window": lambda values: windows(values, 2)},
    unfit=(
        Unfit(
            ("layer_types",),
            lambda values: slides_otherwise(values, 2),
            "the windows of Gemma 2 are in every other layer, from the first",
        ),
    ),
    unused=UNUSED,
    always_parallel_embedding=True,
)
