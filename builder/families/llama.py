"""Llama, and what the families derived from it share.

Tensor names and shapes: TensorRT-LLM's `LLaMAForCausalLM` and its checkpoint documentation. The
trap is in the MLP: `fc` is the projection that goes through the activation, Hugging Face's
`gate_proj`, and `gate` is `up_proj`.
"""

from __future__ import annotations

from typing import Any

from builder.families.rows import (
    LAYER,
    SIZES,
    WEIGHT,
    bias,
    embeddings,
    norm,
    separate_qkv,
    weight,
)
from builder.families.table import Constant, Family, Split, Stage

_HF = "model.layers.{i}."
SELF_ATTENTION = _HF + "self_attn."

EMBEDDINGS = (
    *embeddings("model.embed_tokens"),
    *norm("transformer.ln_f", "model.norm", kinds=WEIGHT, stage=Stage.LAST),
)
NORMS = (
    *norm(LAYER + "input_layernorm", _HF + "input_layernorm", kinds=WEIGHT),
    *norm(LAYER + "post_layernorm", _HF + "post_attention_layernorm", kinds=WEIGHT),
)
DENSE = weight("attention.dense", SELF_ATTENTION + "o_proj", ("D", "Hd"), Split.COLUMNS)
ATTENTION = (*separate_qkv(SELF_ATTENTION), *DENSE)
ATTENTION_BIAS = (
    *separate_qkv(SELF_ATTENTION, "bias", {"attn_bias": True}),
    *bias("attention.dense", SELF_ATTENTION + "o_proj", "D", Split.COPY, {"attn_bias": True}),
)
DOWN = weight("mlp.proj", _HF + "mlp.down_proj", ("D", "I"), Split.COLUMNS)
MLP = (
    *weight("mlp.fc", _HF + "mlp.gate_proj", ("I", "D"), Split.ROWS),
    *weight("mlp.gate", _HF + "mlp.up_proj", ("I", "D"), Split.ROWS),
    *DOWN,
)
MLP_BIAS = (
    *bias("mlp.fc", _HF + "mlp.gate_proj", "I", Split.ROWS, {"mlp_bias": True}),
    *bias("mlp.gate", _HF + "mlp.up_proj", "I", Split.ROWS, {"mlp_bias": True}),
    *bias("mlp.proj", _HF + "mlp.down_proj", "D", Split.COPY, {"mlp_bias": True}),
)

CONFIG: dict[str, Any] = {
    **SIZES,
    "position_embedding_type": Constant(value="rope_gpt_neox"),
    "rotary_base": "rotary_base",
    "rotary_scaling": "rotary_scaling",
    "sliding_window": "sliding_window",
    "attn_bias": "attn_bias",
    "mlp_bias": "mlp_bias",
}

UNUSED = ("*.rotary_emb.inv_freq", "*.self_attn.masked_bias", "*.self_attn.bias")

LLAMA = Family(
    architectures=("LlamaForCausalLM", "LLaMAForCausalLM"),
    rows=(*EMBEDDINGS, *NORMS, *ATTENTION, *ATTENTION_BIAS, *MLP, *MLP_BIAS),
    config={**CONFIG, "residual_mlp": Constant(value=False)},
    unused=UNUSED,
    context=True,
)
