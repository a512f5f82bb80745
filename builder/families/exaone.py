"""EXAONE 3 and 3.5: Llama under GPT-2's names. Its `layer_norm_epsilon` is an RMS norm's.

Names: the table of TensorRT-LLM's `LLaMAForCausalLM.from_hugging_face`.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.llama import CONFIG
from builder.families.rows import LAYER, WEIGHT, embeddings, norm, separate_qkv, weight
from builder.families.table import Constant, Family, Split, Stage

_HF = "transformer.h.{i}."
_ATTENTION = _HF + "attn.attention."

EXAONE = Family(
    architectures=("ExaoneForCausalLM",),
    rows=(
        *embeddings("transformer.wte"),
        *norm("transformer.ln_f", "transformer.ln_f", kinds=WEIGHT, stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "ln_1", kinds=WEIGHT),
        *norm(LAYER + "post_layernorm", _HF + "ln_2", kinds=WEIGHT),
        *separate_qkv(_ATTENTION),
        *weight("attention.dense", _ATTENTION + "out_proj", ("D", "Hd"), Split.COLUMNS),
        *weight("mlp.fc", _HF + "mlp.c_fc_0", ("I", "D"), Split.ROWS),
        *weight("mlp.gate", _HF + "mlp.c_fc_1", ("I", "D"), Split.ROWS),
        *weight("mlp.proj", _HF + "mlp.c_proj", ("D", "I"), Split.COLUMNS),
    ),
    config={**CONFIG, "attn_bias": Constant(value=False), "mlp_bias": Constant(value=False)},
    fields=(
        Field("intermediate_size", ("intermediate_size",), same_as="hidden_size", times=4),
        Field("hidden_act", ("activation_function",), str, default="silu", only=("silu",)),
        Field("norm_epsilon", ("layer_norm_epsilon",), float, default=1e-5),
    ),
    unused=("*.inv_freq", "*.attn.attention.bias", "*.attn.attention.masked_bias"),
    context=True,
)
