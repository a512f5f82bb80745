"""Phi-3, Phi-3.5-mini, Phi-4 and Phi-4-mini: q, k and v stored as one, gate and up too; long rope.

Names and fields: TensorRT-LLM's `models/phi3/{config,model,convert}.py`. Its MLP has the gate in
the second half of `fc`, on every rank: each rank has its share of up, then its share of gate.
(TensorRT-LLM's own converter, and ModelOpt, give the first ranks only up; that is wrong.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Unfit
from builder.families.llama import ATTENTION, CONFIG, EMBEDDINGS, MLP, NORMS, UNUSED
from builder.families.phi import HEAD_SIZE
from builder.families.table import Constant, Family, Part, Present, Row, Rows, Split

_LAYER = "transformer.layers.{i}."


def fused_qkv(source: str, shape: tuple[str, ...] = ("Hd+2Kd", "D")) -> tuple[Part, ...]:
    """q, k and v out of a tensor that has them one after the other."""
    return (
        Part(source, shape, rows=Rows(length="Hd")),
        Part(source, shape, rows=Rows(start="Hd", length="Kd")),
        Part(source, shape, rows=Rows(start="Hd+Kd", length="Kd")),
    )


def swapped_halves(source: str, shape: tuple[str, ...] = ("2I", "D")) -> tuple[Part, ...]:
    """What is multiplied, then what is activated, out of a tensor that has them the other way."""
    return (
        Part(source, shape, rows=Rows(start="I", length="I")),
        Part(source, shape, rows=Rows(length="I")),
    )


FUSED_MLP = (
    Row(
        name=_LAYER + "mlp.fc.weight",
        parts=swapped_halves("model.layers.{i}.mlp.gate_up_proj.weight"),
        split=Split.ROWS,
    ),
    *(row for row in MLP if row.name.endswith("mlp.proj.weight")),
)

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
        Row(
            name=_LAYER + "attention.qkv.weight",
            parts=fused_qkv("model.layers.{i}.self_attn.qkv_proj.weight"),
            split=Split.HEADS,
        ),
        ATTENTION[1],
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
