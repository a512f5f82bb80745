"""MPT: ALiBi, no biases anywhere, and q, k and v optionally clipped.

Names and fields: TensorRT-LLM's `models/mpt/model.py` and its converter. Of what MosaicML's own
code could be told, the class has what transformers' has.
"""

from __future__ import annotations

from builder.families.fields import Field, Refused
from builder.families.rows import (
    CONTIGUOUS,
    FIXED_EPSILON,
    LAYER,
    SIZES,
    TIED,
    embeddings,
    qkv,
    tensor,
    weight,
)
from builder.families.table import Constant, Family, Split, Stage

_HF = "blocks.{i}."

MPT = Family(
    architectures=("MPTForCausalLM", "MptForCausalLM"),
    rows=(
        *embeddings("wte"),
        *tensor("transformer.ln_f.weight", "norm_f.weight", ("D",), Split.COPY, stage=Stage.LAST),
        *tensor(LAYER + "input_layernorm.weight", _HF + "norm_1.weight", ("D",), Split.COPY),
        *tensor(LAYER + "post_layernorm.weight", _HF + "norm_2.weight", ("D",), Split.COPY),
        *qkv(_HF + "attn.Wqkv", fused=CONTIGUOUS),
        *weight("attention.dense", _HF + "attn.out_proj", ("D", "D"), Split.COLUMNS),
        *weight("mlp.fc", _HF + "ffn.up_proj", ("I", "D"), Split.ROWS),
        *weight("mlp.proj", _HF + "ffn.down_proj", ("D", "I"), Split.COLUMNS),
    ),
    config={
        **SIZES,
        "position_embedding_type": Constant(value="alibi"),
        "bias": Constant(value=False),
        "clip_qkv": "clip_qkv",
        "alibi_bias_max": "alibi_bias_max",
    },
    fields=(
        TIED,
        FIXED_EPSILON,
        Field("intermediate_size", (), same_as="hidden_size", times=4),
        Field("hidden_act", (), str, default="gelu"),
        Field("max_position_embeddings", ("max_seq_len",)),
        Field("clip_qkv", ("attn_config.clip_qkv",), float, default=None),
        Field("alibi_bias_max", ("attn_config.alibi_bias_max",), default=8),
    ),
    refused=(
        Refused("expansion_ratio", (4,), "the MLP is four times as wide as the model"),
        Refused("no_bias", (True,), "the class loads no biases"),
        Refused("logit_scale", (), "logits can't be scaled"),
        Refused("norm_type", ("low_precision_layernorm", "layernorm"), "norms are layer norms"),
        Refused("attn_config.alibi", (True,), "positions are always ALiBi's"),
        Refused("attn_config.rope", (False,), "positions are always ALiBi's"),
        Refused("attn_config.qk_ln", (False,), "q and k can't have norms"),
        Refused("attn_config.prefix_lm", (False,), "attention is always causal"),
        Refused("attn_config.attn_uses_sequence_id", (False,), "a prompt is one sequence"),
        Refused("attn_config.softmax_scale", (), "attention scores have the usual scale"),
        Refused("attn_config.attn_type", ("multihead_attention",), "k and v have as many heads"),
        Refused("attn_config.kv_n_heads", (), "k and v have as many heads as q"),
        Refused("attn_config.sliding_window_size", (-1,), "attention has no window"),
        Refused("ffn_config.ffn_type", ("mptmlp",), "the MLP is two linears"),
    ),
    prefixes=("transformer.",),
    pipeline=False,
)
