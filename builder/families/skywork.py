"""Skywork-13B: Llama under another class's name. TensorRT-LLM converts it as Llama."""

from __future__ import annotations

from builder.families.llama import ATTENTION, CONFIG, EMBEDDINGS, MLP, NORMS, UNUSED
from builder.families.table import Constant, Family

SKYWORK = Family(
    architectures=("SkyworkForCausalLM",),
    rows=(*EMBEDDINGS, *NORMS, *ATTENTION, *MLP),
    config={**CONFIG, "attn_bias": Constant(value=False), "mlp_bias": Constant(value=False)},
    unused=UNUSED,
    context=True,
)
