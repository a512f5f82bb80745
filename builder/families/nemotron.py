"""Nemotron and Minitron: TensorRT-LLM's GPT class with rotary positions and no biases.

The norms' weights are stored as their distance from one, their biases as they are.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.gpt2 import GPT_CONFIG
from builder.families.llama import ATTENTION, UNUSED
from builder.families.rows import LAYER, embeddings, norm, weight
from builder.families.table import Change, Constant, Family, Split, Stage

_HF = "model.layers.{i}."

NEMOTRON = Family(
    architectures=("NemotronForCausalLM",),
    rows=(
        *embeddings("model.embed_tokens"),
        *norm("transformer.ln_f", "model.norm", stage=Stage.LAST, change=Change.PLUS_ONE),
        *norm(LAYER + "input_layernorm", _HF + "input_layernorm", change=Change.PLUS_ONE),
        *norm(LAYER + "post_layernorm", _HF + "post_attention_layernorm", change=Change.PLUS_ONE),
        *ATTENTION,
        *weight("mlp.fc", _HF + "mlp.up_proj", ("I", "D"), Split.ROWS),
        *weight("mlp.proj", _HF + "mlp.down_proj", ("D", "I"), Split.COLUMNS),
    ),
    config={
        **GPT_CONFIG,
        "gpt_variant": Constant(value="nemotron"),
        "bias": Constant(value=False),
        "position_embedding_type": Constant(value="rope_gpt_neox"),
        "rotary_pct": "rotary_pct",
        "rotary_base": "rotary_base",
    },
    fields=(
        Field(
            "hidden_act",
            ("hidden_act",),
            str,
            translate={"relu2": "squared-relu"},
            only=("squared-relu",),
        ),
        Field("norm_epsilon", ("norm_eps",), float),
        Field(
            "rotary_pct",
            ("partial_rotary_factor", "rope_parameters.partial_rotary_factor", "rope_percent"),
            float,
            default=0.5,
        ),
    ),
    unused=UNUSED,
)
