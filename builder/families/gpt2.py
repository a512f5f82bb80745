"""GPT-2, and what the families that share TensorRT-LLM's GPT class have in common.

Names and fields: TensorRT-LLM's `models/gpt/{config,convert,model}.py`. GPT-2 stores its linears
as Conv1D: [in, out].
"""

from __future__ import annotations

from builder.families.fields import Field, Refused
from builder.families.rows import (
    CONTIGUOUS,
    LAYER,
    SIZES,
    TIED,
    activation,
    bias,
    embeddings,
    norm,
    qkv,
    qkv_bias,
    tensor,
)
from builder.families.table import Constant, Family, Part, Row, Split, Stage

_HF = "h.{i}."

GPT_CONFIG = {
    **SIZES,
    "bias": Constant(value=True),
    "position_embedding_type": Constant(value="learned_absolute"),
    "q_scaling": Constant(value=1.0),
    "embedding_scale": Constant(value=None),
    "apply_query_key_layer_scaling": Constant(value=False),
    "rotary_pct": Constant(value=1.0),
    "rotary_base": Constant(value=10000.0),
    "rotary_scaling": Constant(value=None),
    "inner_layernorm": Constant(value=False),
    "norm_before_bmm1": Constant(value=False),
    "qk_layernorm": Constant(value=False),
}

OUTSIDE_THE_LAYERS = (
    *embeddings("wte"),
    *tensor(
        "transformer.position_embedding.weight",
        "wpe.weight",
        ("P", "D"),
        Split.EMBEDDING,
        stage=Stage.FIRST,
    ),
    *norm("transformer.ln_f", "ln_f", stage=Stage.LAST),
)
NORMS = (
    *norm(LAYER + "input_layernorm", _HF + "ln_1"),
    *norm(LAYER + "post_layernorm", _HF + "ln_2"),
)

REFUSED = (
    Refused("scale_attn_weights", (True,), "attention scores are always scaled"),
    Refused("add_cross_attention", (False,), "the class has no cross attention"),
    Refused("scale_attn_by_inverse_layer_idx", (False,), "layers can't have scales of their own"),
)

INNER = Field("intermediate_size", ("n_inner",), same_as="hidden_size", times=4)


def _conv1d(name: str, source: str, shape: tuple[str, str], split: Split) -> tuple[Row, ...]:
    """A linear that is stored as [in, out], `shape`, with its bias."""
    part = Part(f"{_HF}{source}.weight", shape, transposed=True)
    return (
        Row(name=f"{LAYER}{name}.weight", parts=(part,), split=split),
        *bias(name, _HF + source, shape[1], Split.ROWS if split is Split.ROWS else Split.COPY),
    )


GPT2 = Family(
    architectures=("GPT2LMHeadModel",),
    rows=(
        *OUTSIDE_THE_LAYERS,
        *NORMS,
        *qkv(_HF + "attn.c_attn", fused=CONTIGUOUS, transposed=True),
        *qkv_bias(_HF + "attn.c_attn", fused=CONTIGUOUS),
        *_conv1d("attention.dense", "attn.c_proj", ("D", "D"), Split.COLUMNS),
        *_conv1d("mlp.fc", "mlp.c_fc", ("D", "I"), Split.ROWS),
        *_conv1d("mlp.proj", "mlp.c_proj", ("I", "D"), Split.COLUMNS),
    ),
    config={**GPT_CONFIG, "gpt_variant": Constant(value="gpt2")},
    fields=(TIED, INNER, activation("activation_function", "gelu_new")),
    refused=REFUSED,
    unused=("*.attn.bias", "*.attn.masked_bias"),
    prefixes=("transformer.",),
)
