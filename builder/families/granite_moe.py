"""Granite-MoE: Granite's multipliers, and all experts of a layer in one tensor."""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.granite import GRANITE
from builder.families.llama import ATTENTION, ATTENTION_BIAS, EMBEDDINGS, NORMS, UNUSED
from builder.families.mixture import MOE, RENORMALIZE, SEVERAL_EXPERTS, SWIGLU, experts, router
from builder.families.table import Constant, Family, Part, Rows

_MOE = "model.layers.{i}.block_sparse_moe."
_INPUT = (_MOE + "input_linear.weight", ("E", "2I", "D"))
_OUTPUT = (_MOE + "output_linear.weight", ("E", "D", "I"))

GRANITE_MOE = Family(
    architectures=("GraniteMoeForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *ATTENTION,
        *ATTENTION_BIAS,
        router(_MOE + "router.layer.weight"),
        *experts(
            up=Part(*_INPUT, Rows(start="I", length="I", expert="2I")),
            gate=Part(*_INPUT, Rows(length="I", expert="2I")),
            down=Part(*_OUTPUT, Rows(length="D", expert="D")),
        ),
    ),
    config={
        **GRANITE.config,
        "mlp_bias": Constant(value=False),
        "moe": {**MOE, "normalization_mode": Constant(value=RENORMALIZE)},
    },
    fields=(
        *GRANITE.fields,
        SWIGLU,
        Field("num_experts", ("num_local_experts",), default=8),
        Field("top_k", ("num_experts_per_tok",), default=2),
    ),
    derived=GRANITE.derived,
    unfit=(SEVERAL_EXPERTS,),
    unused=UNUSED,
)
