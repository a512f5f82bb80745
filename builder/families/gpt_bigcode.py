"""GPT-BigCode (SantaCoder, StarCoder): GPT-2 with plain linears and one head of k and v for all.

With `multi_query` false each head has its own, and they are stored head by head, which
TensorRT-LLM's own converter doesn't know.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.gpt2 import GPT_CONFIG, INNER, NORMS, OUTSIDE_THE_LAYERS, REFUSED
from builder.families.rows import GROUPED, TIED, activation, linear, qkv, qkv_bias
from builder.families.table import Constant, Family, Split

_HF = "h.{i}."

GPT_BIGCODE = Family(
    architectures=("GPTBigCodeForCausalLM",),
    rows=(
        *OUTSIDE_THE_LAYERS,
        *NORMS,
        *qkv(_HF + "attn.c_attn", fused=GROUPED),
        *qkv_bias(_HF + "attn.c_attn", fused=GROUPED),
        *linear("attention.dense", _HF + "attn.c_proj", ("D", "D"), Split.COLUMNS),
        *linear("mlp.fc", _HF + "mlp.c_fc", ("I", "D"), Split.ROWS),
        *linear("mlp.proj", _HF + "mlp.c_proj", ("D", "I"), Split.COLUMNS),
    ),
    config={**GPT_CONFIG, "gpt_variant": Constant(value="starcoder")},
    fields=(
        TIED,
        INNER,
        activation("activation_function", "gelu_pytorch_tanh"),
        Field("multi_query", ("multi_query",), bool, default=True),
        Field("num_key_value_heads", (), default=1, when={"multi_query": True}),
        Field("num_key_value_heads", (), same_as="num_attention_heads"),
    ),
    refused=REFUSED,
    unused=("*.attn.bias", "*.attn.masked_bias"),
    prefixes=("transformer.",),
)
