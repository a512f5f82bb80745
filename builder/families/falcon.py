"""Falcon: 7B, 40B and 180B, 11B, and the RefinedWeb models with ALiBi; old and new spellings.

Names and fields: TensorRT-LLM's `models/falcon/{config,convert,model}.py`. Where attention and MLP
stand side by side, the class sums both over the ranks at once, after each rank has added its
biases: only the first rank may have them (TensorRT-LLM's own converter gives them to all).
"""

from __future__ import annotations

from builder.families.fields import Field, Unfit
from builder.families.rows import (
    FIXED_EPSILON,
    GROUPED,
    LAYER,
    SIZES,
    TIED,
    activation,
    bias,
    embeddings,
    norm,
    qkv,
    qkv_bias,
    weight,
)
from builder.families.table import Constant, Family, Row, Split, Stage

_HF = "h.{i}."


def _summed_bias(name: str, source: str) -> tuple[Row, ...]:
    """The bias of a linear whose output is summed over the ranks."""
    return tuple(
        row
        for parallel, split in ((False, Split.COPY), (True, Split.FIRST_RANK))
        for row in bias(name, source, "D", split, {"bias": True, "parallel_attention": parallel})
    )


FALCON = Family(
    architectures=("FalconForCausalLM", "RWForCausalLM"),
    rows=(
        *embeddings("word_embeddings"),
        *norm("transformer.ln_f", "ln_f", stage=Stage.LAST),
        *(
            row
            for norms, source in (
                (2, "ln_attn"),
                (1, "input_layernorm"),
                (False, "input_layernorm"),
            )
            for row in norm(
                LAYER + "input_layernorm",
                _HF + source,
                when={"num_ln_in_parallel_attn": norms},
            )
        ),
        *norm(LAYER + "mlp_layernorm", _HF + "ln_mlp", when={"num_ln_in_parallel_attn": 2}),
        *norm(
            LAYER + "post_layernorm",
            _HF + "post_attention_layernorm",
            when={"parallel_attention": False},
        ),
        *qkv(_HF + "self_attention.query_key_value", fused=GROUPED),
        *qkv_bias(_HF + "self_attention.query_key_value", fused=GROUPED, when={"bias": True}),
        *weight("attention.dense", _HF + "self_attention.dense", ("D", "D"), Split.COLUMNS),
        *_summed_bias("attention.dense", _HF + "self_attention.dense"),
        *weight("mlp.fc", _HF + "mlp.dense_h_to_4h", ("I", "D"), Split.ROWS),
        *bias("mlp.fc", _HF + "mlp.dense_h_to_4h", "I", Split.ROWS, {"bias": True}),
        *weight("mlp.proj", _HF + "mlp.dense_4h_to_h", ("D", "I"), Split.COLUMNS),
        *_summed_bias("mlp.proj", _HF + "mlp.dense_4h_to_h"),
    ),
    config={
        **SIZES,
        "architecture": Constant(value="FalconForCausalLM"),
        "position_embedding_type": "position_embedding_type",
        "rotary_base": "rotary_base",
        "bias": "bias",
        "parallel_attention": "parallel_attention",
        "new_decoder_architecture": "new_decoder_architecture",
        "num_ln_in_parallel_attn": "num_ln_in_parallel_attn",
    },
    fields=(
        TIED,
        FIXED_EPSILON,
        activation("activation", "gelu"),
        Field("model_type", ("model_type",), str, default="falcon"),
        Field("max_position_embeddings", ("max_position_embeddings",), default=2048),
        Field("intermediate_size", ("ffn_hidden_size",), same_as="hidden_size", times=4),
        Field("bias", ("bias",), bool, default=False),
        Field("multi_query", ("multi_query",), bool, default=True),
        Field("parallel_attention", ("parallel_attn",), bool, default=True),
        Field(
            "position_embedding_type",
            ("alibi",),
            bool,
            default="rope_gpt_neox",
            translate={True: "alibi_with_scale", False: "rope_gpt_neox"},
        ),
        # The first releases of 40B said so by their type only.
        Field("new_decoder_architecture", (), default=True, when={"model_type": "RefinedWeb"}),
        Field("new_decoder_architecture", ("new_decoder_architecture",), bool, default=False),
        Field(
            "num_key_value_heads",
            ("num_kv_heads", "n_head_kv"),
            same_as="num_attention_heads",
            when={"new_decoder_architecture": True},
        ),
        Field("num_key_value_heads", (), default=1, when={"multi_query": True}),
        Field("num_key_value_heads", (), same_as="num_attention_heads"),
        Field(
            "num_ln_in_parallel_attn",
            ("num_ln_in_parallel_attn",),
            default=2,
            when={"new_decoder_architecture": True},
        ),
        Field("num_ln_in_parallel_attn", ("num_ln_in_parallel_attn",), default=None, only=(1,)),
    ),
    unfit=(
        Unfit(
            ("new_decoder_architecture", "parallel_attention"),
            lambda v: v["new_decoder_architecture"] and not v["parallel_attention"],
            "the new decoder's attention and MLP are always side by side",
        ),
    ),
    unused=("*.inv_freq",),
    prefixes=("transformer.",),
)
