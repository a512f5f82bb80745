"""BLOOM: ALiBi, a norm after the embedding, and q, k and v stored head by head.

Names and fields: TensorRT-LLM's `models/bloom/model.py` and its converter. The class's activation
is fixed.
"""

from __future__ import annotations

from builder.families.fields import Field, Refused
from builder.families.rows import (
    FIXED_EPSILON,
    GROUPED,
    LAYER,
    SIZES,
    TIED,
    embeddings,
    linear,
    norm,
    qkv,
    qkv_bias,
)
from builder.families.table import Constant, Family, Split, Stage

_HF = "h.{i}."

BLOOM = Family(
    architectures=("BloomForCausalLM",),
    rows=(
        *embeddings("word_embeddings"),
        *norm("transformer.ln_embed", "word_embeddings_layernorm", stage=Stage.FIRST),
        *norm("transformer.ln_f", "ln_f", stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "input_layernorm"),
        *norm(LAYER + "post_layernorm", _HF + "post_attention_layernorm"),
        *qkv(_HF + "self_attention.query_key_value", fused=GROUPED),
        *qkv_bias(_HF + "self_attention.query_key_value", fused=GROUPED),
        *linear("attention.dense", _HF + "self_attention.dense", ("D", "D"), Split.COLUMNS),
        *linear("mlp.fc", _HF + "mlp.dense_h_to_4h", ("I", "D"), Split.ROWS),
        *linear("mlp.proj", _HF + "mlp.dense_4h_to_h", ("D", "I"), Split.COLUMNS),
    ),
    config={**SIZES, "position_embedding_type": Constant(value="alibi")},
    fields=(
        TIED,
        FIXED_EPSILON,
        Field("hidden_size", ("n_embed", "hidden_size")),
        Field("intermediate_size", (), same_as="hidden_size", times=4),
        Field("hidden_act", (), str, default="gelu_pytorch_tanh"),
        # ALiBi has no limit of its own: this is the length that the models were trained with.
        Field("max_position_embeddings", ("seq_length",), default=2048),
    ),
    refused=(
        Refused(
            "apply_residual_connection_post_layernorm",
            (False,),
            "residuals are always taken before the norm",
        ),
    ),
    prefixes=("transformer.",),
    pipeline=False,
)
