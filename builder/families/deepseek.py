"""DeepSeek's first mixture of experts (deepseek-moe-16b): one dense layer, then shared experts.

Tensor names: the model's published `modeling_deepseek.py`. Config fields: TensorRT-LLM's
`DeepSeekV1Config`; its class has one dense layer, always, and always shared experts.
"""

from __future__ import annotations

from dataclasses import replace

from builder.families.fields import Field, Refused
from builder.families.llama import ATTENTION, CONFIG, EMBEDDINGS, MLP, NORMS, UNUSED
from builder.families.mixture import (
    MOE,
    NORMALIZED_IF_ASKED,
    SEVERAL_EXPERTS,
    SWIGLU,
    shared_expert,
)
from builder.families.qwen_moe import EXPERTS
from builder.families.table import Constant, Family

DEEPSEEK = Family(
    architectures=("DeepseekForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *ATTENTION,
        *(replace(row, before_layer="first_k_dense_replace") for row in MLP),
        *(
            replace(row, from_layer="first_k_dense_replace")
            for row in (*EXPERTS, *shared_expert("model.layers.{i}.mlp.shared_experts"))
        ),
    ),
    config={
        **CONFIG,
        "attn_bias": Constant(value=False),
        "mlp_bias": Constant(value=False),
        "moe": {**MOE, "shared_expert_intermediate_size": "shared_expert_intermediate_size"},
        "moe_intermediate_size": "moe_intermediate_size",
        "first_k_dense_replace": "first_k_dense_replace",
    },
    fields=(
        SWIGLU,
        NORMALIZED_IF_ASKED,
        Field("num_experts", ("n_routed_experts",)),
        Field("top_k", ("num_experts_per_tok",)),
        Field("moe_intermediate_size", ("moe_intermediate_size",), default=1407),
        Field("n_shared_experts", ("n_shared_experts",)),
        Field(
            "shared_expert_intermediate_size",
            same_as="n_shared_experts",
            times="moe_intermediate_size",
        ),
        Field("first_k_dense_replace", ("first_k_dense_replace",), only=(1,)),
    ),
    refused=(
        Refused("moe_layer_freq", (1,), "TensorRT-LLM's class has experts in all other layers"),
        Refused("scoring_func", ("softmax",), "TensorRT-LLM's router takes a softmax"),
    ),
    unfit=(SEVERAL_EXPERTS,),
    unused=UNUSED,
)
