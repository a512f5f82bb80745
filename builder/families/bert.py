"""BERT and RoBERTa: encoders, whose hidden states are pooled into one embedding of a text.

Names and fields: TensorRT-LLM's `models/bert/{config,convert,model}.py`; its `BertModel` stands
alone, so nothing is called `transformer.`. `input_layernorm` is the norm after attention. The
pooler, which embeddings have no use for, is left out, as there. XLM-RoBERTa and CamemBERT are
RoBERTa with other vocabularies; TensorRT-LLM doesn't know their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Refused, Unfit
from builder.families.rows import SIZES, norm, tensor
from builder.families.table import Constant, Family, Part, Present, Row, Split, Stage

LAYER = "layers.{i}."
_HF = "encoder.layer.{i}."
_SELF = _HF + "attention.self."
_QKV = ("query", "key", "value")


def _table(name: str, source: str, rows: str) -> tuple[Row, ...]:
    """A table of the embedding, which every rank has all of."""
    return tensor(
        f"embedding.{name}.weight",
        f"embeddings.{source}.weight",
        (rows, "D"),
        Split.COPY,
        stage=Stage.FIRST,
    )


def _linear(name: str, source: str, shape: tuple[str, str], split: Split) -> tuple[Row, ...]:
    along = Split.ROWS if split is Split.ROWS else Split.COPY
    return (
        *tensor(f"{LAYER}{name}.weight", f"{_HF}{source}.weight", shape, split),
        *tensor(f"{LAYER}{name}.bias", f"{_HF}{source}.bias", shape[:1], along),
    )


def _qkv(kind: str, width: tuple[str, ...]) -> Row:
    parts = tuple(Part(f"{_SELF}{each}.{kind}", ("D", *width)) for each in _QKV)
    return Row(name=f"{LAYER}attention.qkv.{kind}", parts=parts, split=Split.HEADS)


_ROWS = (
    *_table("vocab_embedding", "word_embeddings", "V"),
    *_table("position_embedding", "position_embeddings", "P"),
    *_table("token_embedding", "token_type_embeddings", "T"),
    *norm("embedding.embedding_ln", "embeddings.LayerNorm", stage=Stage.FIRST),
    _qkv("weight", ("D",)),
    _qkv("bias", ()),
    *_linear("attention.dense", "attention.output.dense", ("D", "D"), Split.COLUMNS),
    *norm(LAYER + "input_layernorm", _HF + "attention.output.LayerNorm"),
    *_linear("mlp.fc", "intermediate.dense", ("I", "D"), Split.ROWS),
    *_linear("mlp.proj", "output.dense", ("D", "I"), Split.COLUMNS),
    *norm(LAYER + "post_layernorm", _HF + "output.LayerNorm"),
)

_CONFIG: dict[str, Any] = {
    **SIZES,
    "position_embedding_type": Constant(value="learned_absolute"),
    "type_vocab_size": "type_vocab_size",
    "pad_token_id": "pad_token_id",
    "num_labels": Constant(value=None),
    "embedding": Present(attribute="embedding"),
}
EMBEDDING: Mapping[str, Any] = {
    "pooling": "mean",
    "normalize": True,
    "max_seq_len": None,
    "matryoshka_dimensions": None,
}
"""The config's `embedding`, our own object in it, of a model whose folder doesn't say.

`pooling` over a text's tokens is "mean", "cls" (the first's state) or "max"; `max_seq_len` is in
tokens, None for all positions. An embedding may be cut to `matryoshka_dimensions`, None for never
and an empty list for any.
"""
_FIELDS = (
    Field("type_vocab_size", ("type_vocab_size",), default=2),
    Field("tie_word_embeddings", ("tie_word_embeddings",), bool, default=True),
)
_REFUSED = (
    Refused("position_embedding_type", ("absolute",), "positions are learned and absolute"),
    Refused("is_decoder", (False,), "it is read in both directions"),
    Refused("add_cross_attention", (False,), "there is no cross attention"),
)
_UNFIT = (
    Unfit(
        ("num_attention_heads", "head_size", "hidden_size"),
        lambda values: bool(
            values["num_attention_heads"] * values["head_size"] != values["hidden_size"]
        ),
        "heads together must be as wide as the hidden state",
    ),
)
_SHARED: dict[str, Any] = {
    "rows": _ROWS,
    "refused": _REFUSED,
    "unfit": _UNFIT,
    "unused": ("embeddings.position_ids", "embeddings.token_type_ids", "pooler.*"),
    "dimensions": {"T": "type_vocab_size"},
    "derived": {"embedding": lambda _: dict(EMBEDDING)},
    "pipeline": False,
    "encoder": True,
}

BERT = Family(
    architectures=("BertModel",),
    config={**_CONFIG, "is_roberta": Constant(value=False)},
    fields=(*_FIELDS, Field("pad_token_id", ("pad_token_id",), default=0, zero=True)),
    prefixes=("bert.",),
    **_SHARED,
)
ROBERTA = Family(
    architectures=("CamembertModel", "RobertaModel", "XLMRobertaModel"),
    config={**_CONFIG, "is_roberta": Constant(value=True)},
    fields=(*_FIELDS, Field("pad_token_id", ("pad_token_id",), default=1, zero=True)),
    prefixes=("roberta.",),
    **_SHARED,
)
