"""Qwen3's dense models: no attention bias, an RMS norm over each head of q and k.

TensorRT-LLM's class can't have an attention bias (no published model has): one that does is
refused for its leftover tensors.
"""

from __future__ import annotations

from builder.families.fields import Unfit
from builder.families.llama import ATTENTION, EMBEDDINGS, MLP, NORMS, SELF_ATTENTION, UNUSED
from builder.families.qwen2 import QWEN_CONFIG
from builder.families.rows import weight
from builder.families.table import Constant, Family, Split

QK_NORMS = (
    *weight("attention.q_layernorm", SELF_ATTENTION + "q_norm", ("d",), Split.COPY),
    *weight("attention.k_layernorm", SELF_ATTENTION + "k_norm", ("d",), Split.COPY),
)

GROUPED_QUERIES = Unfit(
    ("num_attention_heads", "num_key_value_heads"),
    lambda values: bool(values["num_attention_heads"] == values["num_key_value_heads"]),
    "TensorRT-LLM norms q and k rightly only with fewer key-value heads than heads",
)
"""With as many, `layers/attention.py` takes q, k and v for interleaved by heads."""

QWEN3 = Family(
    architectures=("Qwen3ForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *ATTENTION,
        *QK_NORMS,
        *MLP,
    ),
    config={
        **QWEN_CONFIG,
        "attn_bias": Constant(value=False),
        "qk_layernorm": Constant(value=True),
        "qwen_type": Constant(value="qwen3"),
    },
    unfit=(GROUPED_QUERIES,),
    unused=UNUSED,
    context=True,
)
