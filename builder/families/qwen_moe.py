"""Qwen2-MoE and Qwen3-MoE: many small experts, in Qwen2's with a gated one for every token.

Config fields: TensorRT-LLM's `QWenConfig`. Its class builds experts in every layer.
"""

from __future__ import annotations

from typing import Any

from builder.families.fields import Field, Refused
from builder.families.llama import ATTENTION, EMBEDDINGS, NORMS, SELF_ATTENTION, UNUSED
from builder.families.mixture import (
    MOE,
    NORMALIZED_IF_ASKED,
    SEVERAL_EXPERTS,
    SWIGLU,
    experts,
    router,
    shared_expert,
)
from builder.families.qwen2 import QWEN_CONFIG
from builder.families.qwen3 import GROUPED_QUERIES, QK_NORMS
from builder.families.rows import separate_qkv, weight
from builder.families.table import Constant, Family, Part, Split

_MLP = "model.layers.{i}.mlp."

EXPERTS = (
    router(_MLP + "gate.weight"),
    *experts(
        up=Part(_MLP + "experts.{e}.up_proj.weight", ("M", "D")),
        gate=Part(_MLP + "experts.{e}.gate_proj.weight", ("M", "D")),
        down=Part(_MLP + "experts.{e}.down_proj.weight", ("D", "M")),
    ),
)

_EVERY_LAYER = "TensorRT-LLM's class has experts in every layer"
_REFUSED = (
    Refused("mlp_only_layers", ([],), _EVERY_LAYER),
    Refused("decoder_sparse_step", (1,), _EVERY_LAYER),
)

_CONFIG: dict[str, Any] = {
    **QWEN_CONFIG,
    "moe": MOE,
    "moe_intermediate_size": "moe_intermediate_size",
    "mlp_only_layers": Constant(value=[]),
    "decoder_sparse_step": Constant(value=1),
}

QWEN2_MOE = Family(
    architectures=("Qwen2MoeForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *ATTENTION,
        *separate_qkv(SELF_ATTENTION, "bias", {"attn_bias": True}),
        *EXPERTS,
        *shared_expert(_MLP + "shared_expert"),
        *weight("mlp.shared_expert_gate", _MLP + "shared_expert_gate", ("1", "D"), Split.COPY),
    ),
    config={
        **_CONFIG,
        "qwen_type": Constant(value="qwen2_moe"),
        "moe": {**MOE, "shared_expert_intermediate_size": "shared_expert_intermediate_size"},
        "moe_shared_expert_intermediate_size": "shared_expert_intermediate_size",
    },
    fields=(
        SWIGLU,
        NORMALIZED_IF_ASKED,
        Field("num_experts", ("num_experts",), default=60),
        Field("top_k", ("num_experts_per_tok",), default=4),
        Field("moe_intermediate_size", ("moe_intermediate_size",), default=1408),
        Field(
            "shared_expert_intermediate_size", ("shared_expert_intermediate_size",), default=5632
        ),
        Field("attn_bias", ("qkv_bias",), bool, default=True),
    ),
    refused=_REFUSED,
    unfit=(SEVERAL_EXPERTS,),
    unused=UNUSED,
)

QWEN3_MOE = Family(
    architectures=("Qwen3MoeForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *ATTENTION,
        *QK_NORMS,
        *EXPERTS,
    ),
    config={
        **_CONFIG,
        "attn_bias": Constant(value=False),
        "qk_layernorm": Constant(value=True),
        "qwen_type": Constant(value="qwen3_moe"),
        "moe_shared_expert_intermediate_size": Constant(value=0),
    },
    fields=(
        SWIGLU,
        NORMALIZED_IF_ASKED,
        Field("num_experts", ("num_experts",), default=128),
        Field("top_k", ("num_experts_per_tok",), default=8),
        Field("moe_intermediate_size", ("moe_intermediate_size",), default=768),
    ),
    refused=_REFUSED,
    unfit=(SEVERAL_EXPERTS, GROUPED_QUERIES),
    unused=UNUSED,
)
