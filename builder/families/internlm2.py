"""InternLM2 and 2.5: Llama with other names and q, k and v stored together, by key-value head.

`wqkv` has for each key-value head the query heads that share it, then the key, then the value.
Source: TensorRT-LLM's `examples/models/core/internlm2/convert_checkpoint.py`.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.llama import CONFIG
from builder.families.rows import (
    GROUPED,
    LAYER,
    WEIGHT,
    bias,
    embeddings,
    norm,
    qkv,
    qkv_bias,
    weight,
)
from builder.families.table import Constant, Family, Split, Stage

_HF = "model.layers.{i}."
_BIASED = {"attn_bias": True}

INTERNLM2 = Family(
    architectures=("InternLM2ForCausalLM",),
    rows=(
        *embeddings("model.tok_embeddings", "output"),
        *norm("transformer.ln_f", "model.norm", kinds=WEIGHT, stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "attention_norm", kinds=WEIGHT),
        *norm(LAYER + "post_layernorm", _HF + "ffn_norm", kinds=WEIGHT),
        *qkv(_HF + "attention.wqkv", fused=GROUPED),
        *qkv_bias(_HF + "attention.wqkv", fused=GROUPED, when=_BIASED),
        *weight("attention.dense", _HF + "attention.wo", ("D", "Hd"), Split.COLUMNS),
        *bias("attention.dense", _HF + "attention.wo", "D", Split.COPY, _BIASED),
        *weight("mlp.fc", _HF + "feed_forward.w1", ("I", "D"), Split.ROWS),
        *weight("mlp.gate", _HF + "feed_forward.w3", ("I", "D"), Split.ROWS),
        *weight("mlp.proj", _HF + "feed_forward.w2", ("D", "I"), Split.COLUMNS),
    ),
    config={**CONFIG, "mlp_bias": Constant(value=False)},
    fields=(Field("attn_bias", ("bias",), bool, default=True),),
    unused=("*.rotary_emb.inv_freq",),
    unused_when_tied=("output.weight",),
    context=True,
)
