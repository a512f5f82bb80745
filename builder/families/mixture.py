"""What families with a mixture of experts share: the experts' rows and the router's settings.

Shapes and order: TensorRT-LLM 1.2's `layers/moe.py`. An expert's `fc` is the projection without
an activation, Hugging Face's `up_proj` or `w3`, before the one with: the other way round than in
a dense layer's two tensors. Every rank has the whole router, in float32.
"""

from __future__ import annotations

from builder.families.fields import Field, Unfit
from builder.families.rows import LAYER, weight
from builder.families.table import Part, Row, Split

MODES = NONE, RENORMALIZE, SPARSE_MIXER = range(3)
"""`normalization_mode`: the chosen experts' weights as they are, scaled to one, or Phi-MoE's."""

MOE = {
    "num_experts": "num_experts",
    "top_k": "top_k",
    "normalization_mode": "normalization_mode",
}
"""The `moe` object of the checkpoint's config. `MoeConfig` takes no field that it doesn't know."""

SWIGLU = Field(
    "hidden_act",
    ("hidden_act",),
    str,
    default="swiglu",
    translate={"silu": "swiglu"},
    only=("swiglu",),
)

NORMALIZED_IF_ASKED = Field(
    "normalization_mode",
    ("norm_topk_prob",),
    bool,
    default=NONE,
    translate={False: NONE, True: RENORMALIZE},
)
"""TensorRT-LLM's own converters write NONE whatever the model says; its router knows both."""

SEVERAL_EXPERTS = Unfit(
    ("num_experts",),
    lambda values: bool(values["num_experts"] < 2),
    "TensorRT-LLM builds a dense layer for a single expert",
)


def router(name: str) -> Row:
    """The router's row from the source tensor `name`, [E, D]."""
    return Row(
        name=LAYER + "mlp.router.weight",
        parts=(Part(name, ("E", "D")),),
        split=Split.COPY,
        dtype="float32",
    )


def experts(up: Part, gate: Part, down: Part) -> tuple[Row, ...]:
    """The rows of the routed experts; a part is that of one expert."""
    return (
        Row(
            name=LAYER + "mlp.fc.weight",
            parts=(up, gate),
            split=Split.ROWS,
            experts=True,
        ),
        Row(
            name=LAYER + "mlp.proj.weight",
            parts=(down,),
            split=Split.COLUMNS,
            experts=True,
        ),
    )


def shared_expert(prefix: str) -> tuple[Row, ...]:
    """The rows of the expert that sees every token, named `prefix` in the source."""
    return (
        Row(
            name=LAYER + "mlp.shared_expert.fc.weight",
            parts=(
                Part(prefix + ".up_proj.weight", ("S", "D")),
                Part(prefix + ".gate_proj.weight", ("S", "D")),
            ),
            split=Split.ROWS,
        ),
        *weight("mlp.shared_expert.proj", prefix + ".down_proj", ("D", "S"), Split.COLUMNS),
    )
