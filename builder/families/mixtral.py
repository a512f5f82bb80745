"""Mixtral: Mistral's layers with a mixture of experts, weighed anew among the chosen ones.

Config fields: TensorRT-LLM's `LLaMAConfig.from_hugging_face`.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.llama import ATTENTION, CONFIG, EMBEDDINGS, NORMS, UNUSED
from builder.families.mixture import MOE, RENORMALIZE, SEVERAL_EXPERTS, SWIGLU, experts, router
from builder.families.table import Constant, Family, Part

_MOE = "model.layers.{i}.block_sparse_moe."

MIXTRAL_EXPERTS = (
    router(_MOE + "gate.weight"),
    *experts(
        up=Part(_MOE + "experts.{e}.w3.weight", ("I", "D")),
        gate=Part(_MOE + "experts.{e}.w1.weight", ("I", "D")),
        down=Part(_MOE + "experts.{e}.w2.weight", ("D", "I")),
    ),
)

MIXTRAL = Family(
    architectures=("MixtralForCausalLM",),
    rows=(*EMBEDDINGS, *NORMS, *ATTENTION, *MIXTRAL_EXPERTS),
    config={
        **CONFIG,
        "attn_bias": Constant(value=False),
        "mlp_bias": Constant(value=False),
        "residual_mlp": Constant(value=False),
        "moe": {**MOE, "normalization_mode": Constant(value=RENORMALIZE)},
    },
    fields=(
        SWIGLU,
        Field("num_experts", ("num_local_experts",), default=8),
        Field("top_k", ("num_experts_per_tok",), default=2),
        Field("rotary_base", ("rope_parameters.rope_theta", "rope_theta"), float, default=1e6),
    ),
    unfit=(SEVERAL_EXPERTS,),
    unused=UNUSED,
)
