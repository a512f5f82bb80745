"""Phi-3, Phi-3.5-mini, Phi-4 and Phi-4-mini: q, k and v stored as one, gate and up too; long rope.

Names and fields: TensorRT-LLM's `models/phi3/{config,model,convert}.py`. Its MLP has the gate in
the second half of `fc`, on every rank: each rank has its share of up, then its share of gate.
(TensorRT-LLM's own converter, and ModelOpt, give the first ranks only up; that is wrong.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Unfit
from builder.families.llama import (
    CONFIG,
    DENSE,
    DOWN,
    EMBEDDINGS,
    NORMS,
    SELF_ATTENTION,
    UNUSED,
)
from builder.families.phi import HEAD_SIZE
from builder.families.rows import CONTIGUOUS, LAYER, qkv
from builder.families.table import Constant, Family, Part, Present, Row, Rows, Split


def gated_fc(
    source: str, kind: str = "weight", when: Mapping[str, Any] | None = None
) -> tuple[Row, ...]:
    """`fc`'s weight or bias: what is multiplied, then what is activated; stored the other way."""
    shape = ("2I", "D") if kind == "weight" else ("2I",)
    parts = tuple(
        Part(f"{source}.{kind}", shape, rows)
        for rows in (Rows(start="I", length="I"), Rows(length="I"))
    )
    name = f"{LAYER}mlp.fc.{kind}"
    return (Row(name=name, parts=parts, split=Split.ROWS, when=when or {}),)


FUSED_MLP = (*gated_fc("model.layers.{i}.mlp.gate_up_proj"), *DOWN)

SWIGLU = Field("hidden_act", ("hidden_act",), str, translate={"silu": "swiglu"}, only=("swiglu",))


def _other_factors(values: Mapping[str, Any]) -> bool:
    """Whether long rope's lists are of another length than the frequencies."""
    lists = (values.get(f"longrope_scaling_{length}_factors") for length in ("short", "long"))
    frequencies = int(values["head_size"] * values["rotary_pct"]) // 2
    return any(factors is not None and len(factors) != frequencies for factors in lists)


PHI3 = Family(
    architectures=("Phi3ForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *qkv(SELF_ATTENTION + "qkv_proj", fused=CONTIGUOUS),
        *DENSE,
        *FUSED_MLP,
    ),
    config={
        **{name: entry for name, entry in CONFIG.items() if name not in ("attn_bias", "mlp_bias")},
        "rotary_scaling": Constant(value=None),
        "rotary_pct": "rotary_pct",
        "position_embedding_type": "position_embedding_type",
        "original_max_position_embeddings": Present(attribute="original_max_position_embeddings"),
        "longrope_scaling_short_factors": Present(attribute="longrope_scaling_short_factors"),
        "longrope_scaling_long_factors": Present(attribute="longrope_scaling_long_factors"),
    },
    fields=(SWIGLU,),
    unfit=(
        HEAD_SIZE,
        Unfit(
            ("head_size", "rotary_pct"),
            _other_factors,
            "long rope needs one factor for each pair of rotated elements",
        ),
    ),
    unused=UNUSED,
    pipeline=False,
)
