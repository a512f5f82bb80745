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
from builder.families.phi3 import fused_qkv, swapped_halves
from builder.families.table import Constant, Family, Part, Row, Split, Stage

_LAYER = "transformer.layers.{i}."
_HF = "transformer.encoder.layers.{i}."
_GLM4_VOCABULARY = 151552
_NAMES = {"chatglm2": "chatglm2", "chatglm3": "chatglm3", "glm_4": "glm4", "glm4": "glm4"}


def _one(
    name: str, source: str, shape: tuple[str, ...], split: Split, when: Mapping[str, Any]
) -> Row:
    return Row(name=_LAYER + name, parts=(Part(_HF + source, shape),), split=split, when=when)


def _norms(kind: str, when: Mapping[str, Any]) -> tuple[Row, ...]:
    return (
        Row(
            name=f"transformer.ln_f.{kind}",
            parts=(Part(f"transformer.encoder.final_layernorm.{kind}", ("D",)),),
            split=Split.COPY,
            stage=Stage.LAST,
            when=when,
        ),
        _one(f"input_layernorm.{kind}", f"input_layernorm.{kind}", ("D",), Split.COPY, when),
        _one(
            f"post_layernorm.{kind}", f"post_attention_layernorm.{kind}", ("D",), Split.COPY, when
        ),
    )


_BIASED = {"add_bias_linear": True}

CHATGLM_CONFIG: dict[str, Any] = {
    "architecture": "architecture",
    "chatglm_version": "chatglm_version",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_size": "head_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "hidden_act": "hidden_act",
    "norm_epsilon": "norm_epsilon",
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
        Row(
            name="transformer.vocab_embedding.weight",
            parts=(Part("transformer.embedding.word_embeddings.weight", ("V", "D")),),
            split=Split.EMBEDDING,
            stage=Stage.FIRST,
        ),
        Row(
            name="lm_head.weight",
            parts=(Part("transformer.output_layer.weight", ("V", "D")),),
            split=Split.VOCABULARY,
            stage=Stage.LAST,
        ),
        *_norms("weight", {}),
        *_norms("bias", {"rmsnorm": False}),
        Row(
            name=_LAYER + "attention.qkv.weight",
            parts=fused_qkv(_HF + "self_attention.query_key_value.weight"),
            split=Split.HEADS,
        ),
        Row(
            name=_LAYER + "attention.qkv.bias",
            parts=fused_qkv(_HF + "self_attention.query_key_value.bias", ("Hd+2Kd",)),
            split=Split.HEADS,
            when={"add_qkv_bias": True},
        ),
        _one(
            "attention.dense.weight", "self_attention.dense.weight", ("D", "Hd"), Split.COLUMNS, {}
        ),
        _one("attention.dense.bias", "self_attention.dense.bias", ("D",), Split.COPY, _BIASED),
        Row(
            name=_LAYER + "mlp.fc.weight",
            parts=swapped_halves(_HF + "mlp.dense_h_to_4h.weight"),
            split=Split.ROWS,
        ),
        Row(
            name=_LAYER + "mlp.fc.bias",
            parts=swapped_halves(_HF + "mlp.dense_h_to_4h.bias", ("2I",)),
            split=Split.ROWS,
            when=_BIASED,
        ),
        _one("mlp.proj.weight", "mlp.dense_4h_to_h.weight", ("D", "I"), Split.COLUMNS, {}),
        _one("mlp.proj.bias", "mlp.dense_4h_to_h.bias", ("D",), Split.COPY, _BIASED),
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
