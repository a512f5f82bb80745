"""Gemma 1: Llama with norms that are stored as their distance from one, and an unusual head size.

Names and fields: TensorRT-LLM's `models/gemma/{config,model,convert}.py`. The embedding isn't
scaled here: the class multiplies by the square root of the hidden size. With tensor parallelism the
class divides the embedding, whatever the config says.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.llama import ATTENTION, CONFIG, MLP, UNUSED
from builder.families.rows import LAYER, TIED, WEIGHT, embeddings, norm
from builder.families.table import Change, Constant, Family, Part, Row, Split, Stage

_HF = "model.layers.{i}."


def plus_one(name: str, source: str, length: str = "D") -> tuple[Row, ...]:
    """A layer's norm."""
    part = Part(f"{_HF}{source}.weight", (length,), change=Change.PLUS_ONE)
    return (Row(name=f"{LAYER}{name}.weight", parts=(part,), split=Split.COPY),)


EMBEDDINGS_AND_FINAL_NORM = (
    *embeddings("model.embed_tokens"),
    *norm(
        "transformer.ln_f",
        "model.norm",
        kinds=WEIGHT,
        stage=Stage.LAST,
        change=Change.PLUS_ONE,
    ),
)
NORMS = (
    *plus_one("input_layernorm", "input_layernorm"),
    *plus_one("post_layernorm", "post_attention_layernorm"),
)

GEMMA_CONFIG = {
    **CONFIG,
    "rotary_scaling": Constant(value=None),
    "attn_bias": Constant(value=False),
    "mlp_bias": Constant(value=False),
    "inter_layernorms": Constant(value=False),
}

# The first release wrote "gelu" and meant its approximation.
ACTIVATION = Field(
    "hidden_act",
    ("hidden_activation", "hidden_act"),
    str,
    default="gelu_pytorch_tanh",
    translate={"gelu": "gelu_pytorch_tanh"},
    only=("gelu_pytorch_tanh",),
)

GEMMA = Family(
    architectures=("GemmaForCausalLM",),
    rows=(*EMBEDDINGS_AND_FINAL_NORM, *NORMS, *ATTENTION, *MLP),
    config=GEMMA_CONFIG,
    fields=(
        TIED,
        Field("head_size", ("head_dim",), default=256),
        ACTIVATION,
    ),
    unused=UNUSED,
    always_parallel_embedding=True,
)
