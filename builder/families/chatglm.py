"""ChatGLM2, ChatGLM3 and GLM-4 in their first form, with code of their own.

Names and fields: TensorRT-LLM's `models/chatglm/{config,model,convert}.py`. The three differ in one
thing: what `rope_ratio` is. To ChatGLM2 it divides the positions, to the others it multiplies the
base. As a config doesn't say which it is, that is told by the vocabulary or the model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Refused, Unfit
from builder.families.phi import HEAD_SIZE
from builder.families.phi3 import gated_fc
from builder.families.rows import (
    CONTIGUOUS,
    LAYER,
    SIZES,
    bias,
    norm,
    qkv,
    qkv_bias,
    tensor,
    weight,
)
from builder.families.table import Constant, Family, Split, Stage

_HF = "transformer.encoder.layers.{i}."
_GLM4_VOCABULARY = 151552
_NAMES = {"chatglm2": "chatglm2", "chatglm3": "chatglm3", "glm_4": "glm4", "glm4": "glm4"}
_BIASED = {"add_bias_linear": True}

CHATGLM_CONFIG: dict[str, Any] = {
    **{name: entry for name, entry in SIZES.items() if name != "tie_word_embeddings"},
    "chatglm_version": "chatglm_version",
    "position_embedding_type": Constant(value="rope_gptj"),
    "rotary_base": "rotary_base",
    "rotary_scaling": "rotary_scaling",
    "rotary_pct": "rotary_pct",
    "add_bias_linear": "add_bias_linear",
    "add_qkv_bias": "add_qkv_bias",
    "apply_query_key_layer_scaling": Constant(value=False),
    "apply_residual_connection_post_layernorm": "apply_residual_connection_post_layernorm",
    "rmsnorm": "rmsnorm",
}


def _version(values: Mapping[str, Any]) -> str | None:
    """TensorRT-LLM's name of the generation; None where it matters and can't be told."""
    if values["vocab_size"] == _GLM4_VOCABULARY:
        return "glm4"
    name = values["name"].lower().replace("-", "_")
    known = next((version for part, version in _NAMES.items() if part in name), None)
    return known or ("chatglm3" if values["rope_ratio"] == 1 else None)


def _scaling(values: Mapping[str, Any]) -> dict[str, Any] | None:
    if _version(values) != "chatglm2" or values["rope_ratio"] == 1:
        return None
    return {"rope_type": "linear", "factor": values["rope_ratio"]}


CHATGLM = Family(
    architectures=("ChatGLMModel", "ChatGLMForConditionalGeneration", "ChatGLMForCausalLM"),
    rows=(
        *tensor(
            "transformer.vocab_embedding.weight",
            "transformer.embedding.word_embeddings.weight",
            ("V", "D"),
            Split.EMBEDDING,
            stage=Stage.FIRST,
        ),
        *tensor(
            "lm_head.weight",
            "transformer.output_layer.weight",
            ("V", "D"),
            Split.VOCABULARY,
            stage=Stage.LAST,
        ),
        *(
            row
            for kind, when in (("weight", {}), ("bias", {"rmsnorm": False}))
            for name, source, stage in (
                ("transformer.ln_f", "transformer.encoder.final_layernorm", Stage.LAST),
                (LAYER + "input_layernorm", _HF + "input_layernorm", Stage.EACH),
                (LAYER + "post_layernorm", _HF + "post_attention_layernorm", Stage.EACH),
            )
            for row in norm(name, source, kinds=(kind,), stage=stage, when=when)
        ),
        *qkv(_HF + "self_attention.query_key_value", fused=CONTIGUOUS),
        *qkv_bias(
            _HF + "self_attention.query_key_value", fused=CONTIGUOUS, when={"add_qkv_bias": True}
        ),
        *weight("attention.dense", _HF + "self_attention.dense", ("D", "Hd"), Split.COLUMNS),
        *bias("attention.dense", _HF + "self_attention.dense", "D", Split.COPY, _BIASED),
        *gated_fc(_HF + "mlp.dense_h_to_4h"),
        *gated_fc(_HF + "mlp.dense_h_to_4h", "bias", _BIASED),
        *weight("mlp.proj", _HF + "mlp.dense_4h_to_h", ("D", "I"), Split.COLUMNS),
        *bias("mlp.proj", _HF + "mlp.dense_4h_to_h", "D", Split.COPY, _BIASED),
    ),
    config=CHATGLM_CONFIG,
    fields=(
        Field("name", ("_name_or_path",), str, default=""),
        Field("vocab_size", ("padded_vocab_size",)),
        Field("intermediate_size", ("ffn_hidden_size",)),
        Field("max_position_embeddings", ("seq_length",)),
        Field("norm_epsilon", ("layernorm_epsilon",), float, default=1e-5),
        Field("head_size", ("kv_channels",), default=128),
        Field("hidden_act", default="swiglu"),
        Field("multi_query_attention", ("multi_query_attention",), bool, default=False),
        Field(
            "num_key_value_heads",
            ("multi_query_group_num",),
            default=1,
            when={"multi_query_attention": True},
        ),
        Field("num_key_value_heads", same_as="num_attention_heads"),
        Field("rotary_pct", default=0.5),
        Field("rope_ratio", ("rope_ratio",), float, default=1.0),
        Field("rmsnorm", ("rmsnorm",), bool, default=True),
        Field("add_bias_linear", ("add_bias_linear",), bool, default=False),
        Field("add_qkv_bias", ("add_qkv_bias",), bool, default=False),
        Field(
            "apply_residual_connection_post_layernorm",
            ("apply_residual_connection_post_layernorm",),
            bool,
            default=False,
        ),
    ),
    derived={
        "chatglm_version": _version,
        "rotary_base": lambda values: (
            10000.0 * (1.0 if _version(values) == "chatglm2" else values["rope_ratio"])
        ),
        "rotary_scaling": _scaling,
    },
    refused=(
        Refused("post_layer_norm", (True,), "TensorRT-LLM's class has a final norm"),
        Refused("tie_word_embeddings", (False,), "the head is a tensor of its own"),
        Refused("quantization_bit", (0,), "its weights are quantized"),
        Refused("pre_seq_len", (), "a prefix can't be carried"),
        Refused("inner_hidden_size", (), "the first ChatGLM rotates by two positions"),
    ),
    unfit=(
        HEAD_SIZE,
        Unfit(
            ("rope_ratio", "name"),
            lambda values: _version(values) is None,
            "ChatGLM2 and ChatGLM3 mean different things by rope_ratio, and the field "
            "_name_or_path doesn't say which this is",
        ),
    ),
    unused=("*.inv_freq",),
    pipeline=False,
    context=True,
)
