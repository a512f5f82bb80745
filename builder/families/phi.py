"""Phi-1.5 and Phi-2: attention and MLP beside each other on one LayerNorm, with biases everywhere.

Names and fields: TensorRT-LLM's `models/phi/{config,model,convert}.py`. Its class takes few
liberties: as many key-value heads as heads, and LayerNorm's own epsilon.
"""

from __future__ import annotations

from builder.families.fields import Field, Refused, Unfit
from builder.families.llama import ATTENTION, CONFIG, EMBEDDINGS, QKV_BIAS_PARTS, UNUSED
from builder.families.table import Constant, Family, Part, Row, Split, Stage

_LAYER = "transformer.layers.{i}."
_HF = "model.layers.{i}."

HEAD_SIZE = Unfit(
    ("hidden_size", "num_attention_heads", "head_size"),
    lambda values: values["head_size"] * values["num_attention_heads"] != values["hidden_size"],
    "TensorRT-LLM's class divides the hidden size by the heads",
)


def _pair(name: str, source: str, shape: tuple[str, ...], split: Split, bias: Split) -> list[Row]:
    """A linear layer's weight and bias."""
    return [
        Row(
            name=f"{_LAYER}{name}.{kind}",
            parts=(Part(f"{_HF}{source}.{kind}", size),),
            split=how,
        )
        for kind, size, how in (("weight", shape, split), ("bias", shape[:1], bias))
    ]


PHI = Family(
    architectures=("PhiForCausalLM",),
    rows=(
        *(row for row in EMBEDDINGS if row.name != "transformer.ln_f.weight"),
        Row(
            name="lm_head.bias",
            parts=(Part("lm_head.bias", ("V",)),),
            split=Split.VOCABULARY,
            stage=Stage.LAST,
        ),
        *(
            Row(
                name=f"transformer.ln_f.{kind}",
                parts=(Part(f"model.final_layernorm.{kind}", ("D",)),),
                split=Split.COPY,
                stage=Stage.LAST,
            )
            for kind in ("weight", "bias")
        ),
        *_pair("input_layernorm", "input_layernorm", ("D",), Split.COPY, Split.COPY),
        ATTENTION[0],
        Row(name=_LAYER + "attention.qkv.bias", parts=QKV_BIAS_PARTS, split=Split.HEADS),
        *_pair("attention.dense", "self_attn.dense", ("D", "Hd"), Split.COLUMNS, Split.COPY),
        *_pair("mlp.fc", "mlp.fc1", ("I", "D"), Split.ROWS, Split.ROWS),
        *_pair("mlp.proj", "mlp.fc2", ("D", "I"), Split.COLUMNS, Split.COPY),
    ),
    config={
        **{name: entry for name, entry in CONFIG.items() if name not in ("attn_bias", "mlp_bias")},
        "rotary_scaling": Constant(value=None),
        "rotary_pct": "rotary_pct",
    },
    fields=(
        Field(
            "rotary_pct",
            ("rope_parameters.partial_rotary_factor", "partial_rotary_factor"),
            float,
            default=0.5,
        ),
        Field(
            "norm_epsilon",
            ("layer_norm_eps",),
            float,
            default=1e-5,
            only=(1e-5,),
        ),
    ),
    refused=(Refused("qk_layernorm", (False,), "TensorRT-LLM's class has no norm over q and k"),),
    unfit=(
        HEAD_SIZE,
        Unfit(
            ("num_attention_heads", "num_key_value_heads"),
            lambda values: values["num_attention_heads"] != values["num_key_value_heads"],
            "TensorRT-LLM's class has as many key-value heads as heads",
        ),
    ),
    unused=UNUSED,
    pipeline=False,
)
