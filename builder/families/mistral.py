"""Mistral's dense models: Llama without biases, some with a sliding window."""

from __future__ import annotations

from builder.families.llama import ATTENTION, CONFIG, EMBEDDINGS, MLP, NORMS, UNUSED
from builder.families.table import Constant, Family

MISTRAL = Family(
    architectures=("MistralForCausalLM",),
    rows=(*EMBEDDINGS, *NORMS, *ATTENTION, *MLP),
    config={
        **CONFIG,
        "attn_bias": Constant(value=False),
        "mlp_bias": Constant(value=False),
        "residual_mlp": Constant(value=False),
    },
    unused=UNUSED,
    context=True,
)
