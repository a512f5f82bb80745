"""Gemma 3, the language model: Gemma 2 without caps, with a norm over each head of q and k.

Its layers slide but for every sixth, and those that do have a rotary embedding of their own.
TensorRT-LLM's class would scale both rotary embeddings alike, so a scaled one can't be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Refused, Unfit
from builder.families.gemma import EMBEDDINGS_AND_FINAL_NORM, GEMMA_CONFIG, plus_one
from builder.families.gemma2 import GEMMA2_FIELDS, SANDWICH, slides_otherwise, windows
from builder.families.llama import ATTENTION, MLP, UNUSED
from builder.families.qwen3 import GROUPED_QUERIES
from builder.families.table import Constant, Family


def _period(values: Mapping[str, Any]) -> int:
    """Of how many layers the last attends to everything."""
    kinds = values["layer_types"] or []
    if "full_attention" in kinds:
        return int(kinds.index("full_attention")) + 1
    return int(values["period"])


GEMMA3 = Family(
    architectures=("Gemma3ForCausalLM",),
    rows=(
        *EMBEDDINGS_AND_FINAL_NORM,
        *SANDWICH,
        *ATTENTION,
        *plus_one("attention.q_layernorm", "self_attn.q_norm", "d"),
        *plus_one("attention.k_layernorm", "self_attn.k_norm", "d"),
        *MLP,
    ),
    config={
        **GEMMA_CONFIG,
        "inter_layernorms": Constant(value=True),
        "qk_layernorm": Constant(value=True),
        "query_pre_attn_scalar": "query_pre_attn_scalar",
        "final_logit_softcapping": "final_logit_softcapping",
        "_sliding_window_pattern": "_sliding_window_pattern",
        "rope_local_base_freq": "rope_local_base_freq",
    },
    fields=(
        *GEMMA2_FIELDS,
        Field("final_logit_softcapping", ("final_logit_softcapping",), float, default=None),
        Field("period", ("_sliding_window_pattern", "sliding_window_pattern"), default=6),
        Field(
            "rotary_base",
            ("rope_parameters.full_attention.rope_theta", "rope_theta"),
            float,
            default=1e6,
        ),
        Field(
            "rope_local_base_freq",
            ("rope_parameters.sliding_attention.rope_theta", "rope_local_base_freq"),
            float,
            default=1e4,
        ),
    ),
    derived={
        "_sliding_window_pattern": _period,
        "max_attention_window": lambda values: windows(values, _period(values)),
    },
    refused=(
        Refused(
            "attn_logit_softcapping", (), "TensorRT-LLM's Gemma 3 doesn't cap attention scores"
        ),
        Refused("use_bidirectional_attention", (False,), "TensorRT-LLM's attention is causal"),
        Refused(
            "rope_parameters.sliding_attention.rope_type",
            ("default",),
            "TensorRT-LLM scales the rotary embeddings of all layers alike",
        ),
    ),
    unfit=(
        Unfit(
            ("layer_types",),
            lambda values: slides_otherwise(values, _period(values)),
            "all layers must slide but for every nth",
        ),
        GROUPED_QUERIES,
    ),
    unused=UNUSED,
    always_parallel_embedding=True,
)
