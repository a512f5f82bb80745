"""Qwen2 and Qwen2.5: q, k and v have a bias, always; the output projection never has.

Config fields: TensorRT-LLM's `QWenConfig.from_hugging_face`.
"""

from __future__ import annotations

from typing import Any

from builder.families.llama import (
    ATTENTION,
    CONFIG,
    EMBEDDINGS,
    MLP,
    NORMS,
    SELF_ATTENTION,
    UNUSED,
)
from builder.families.rows import separate_qkv
from builder.families.table import Constant, Family

QWEN_CONFIG: dict[str, Any] = {
    **CONFIG,
    "mlp_bias": Constant(value=False),
    "seq_length": Constant(value=8192),
    "use_logn_attn": Constant(value=False),
}

QWEN2 = Family(
    architectures=("Qwen2ForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *ATTENTION,
        *separate_qkv(SELF_ATTENTION, "bias"),
        *MLP,
    ),
    config={
        **QWEN_CONFIG,
        "attn_bias": Constant(value=True),
        "qwen_type": Constant(value="qwen2"),
    },
    unused=UNUSED,
    context=True,
)
