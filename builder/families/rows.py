"""The rows that families share: embeddings, norms, linears, and the joined q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.families.fields import Field, Unfit
from builder.families.table import Change, Part, Row, Rows, Split, Stage

LAYER = "transformer.layers.{i}."
WEIGHT = ("weight",)
"""The kinds of a norm without a bias."""

TIED = Field("tie_word_embeddings", ("tie_word_embeddings",), bool, default=True)
"""transformers ties the embeddings of most of these models unless told not to."""

FIXED_EPSILON = Field("norm_epsilon", ("layer_norm_epsilon",), float, default=1e-5, only=(1e-5,))
"""For classes that pass no epsilon to some of their norms, which then have TensorRT-LLM's own."""

FOUR_TIMES_WIDE = Unfit(
    ("intermediate_size", "hidden_size"),
    lambda values: bool(values["intermediate_size"] != 4 * values["hidden_size"]),
    "TensorRT-LLM's class has an MLP four times as wide as the model",
)


def tensor(
    name: str, source: str, shape: tuple[str, ...], split: Split, **row: Any
) -> tuple[Row, ...]:
    """A tensor that is stored as it is needed."""
    return (Row(name=name, parts=(Part(source, shape),), split=split, **row),)


def norm(
    name: str,
    source: str,
    *,
    kinds: tuple[str, ...] = ("weight", "bias"),
    stage: Stage = Stage.EACH,
    change: Change | None = None,
    when: Mapping[str, Any] | None = None,
) -> tuple[Row, ...]:
    """A norm's weight, `change`d if so, and its bias; or what of them is in `kinds`."""
    return tuple(
        Row(
            name=f"{name}.{kind}",
            parts=(Part(f"{source}.{kind}", ("D",), change=change if kind == "weight" else None),),
            split=Split.COPY,
            stage=stage,
            when=when or {},
        )
        for kind in kinds
    )


def linear(name: str, source: str, shape: tuple[str, str], split: Split) -> tuple[Row, ...]:
    """A layer's linear, `shape` [out, in], with its bias.

    The bias of one that is divided by columns is added once, after the sum over the ranks.
    """
    return (
        *weight(name, source, shape, split),
        *bias(name, source, shape[0], Split.ROWS if split is Split.ROWS else Split.COPY),
    )


def weight(
    name: str,
    source: str,
    shape: tuple[str, ...],
    split: Split,
    when: Mapping[str, Any] | None = None,
) -> tuple[Row, ...]:
    """A layer's weight, of a linear [out, in]."""
    return tensor(f"{LAYER}{name}.weight", f"{source}.weight", shape, split, when=when or {})


def bias(
    name: str, source: str, length: str, split: Split, when: Mapping[str, Any] | None = None
) -> tuple[Row, ...]:
    """A layer's bias."""
    return tensor(f"{LAYER}{name}.bias", f"{source}.bias", (length,), split, when=when or {})


def qkv(source: str, *, fused: tuple[Rows, ...], transposed: bool = False) -> tuple[Row, ...]:
    """The weight of a layer's fused projection of q, k and v."""
    shape = ("D", "Hd+2Kd") if transposed else ("Hd+2Kd", "D")
    parts = tuple(Part(f"{source}.weight", shape, rows, transposed=transposed) for rows in fused)
    return (Row(name=f"{LAYER}attention.qkv.weight", parts=parts, split=Split.HEADS),)


def qkv_bias(
    source: str, *, fused: tuple[Rows, ...], when: Mapping[str, Any] | None = None
) -> tuple[Row, ...]:
    """The bias of a fused projection of q, k and v."""
    parts = tuple(Part(f"{source}.bias", ("Hd+2Kd",), rows) for rows in fused)
    name = f"{LAYER}attention.qkv.bias"
    return (Row(name=name, parts=parts, split=Split.HEADS, when=when or {}),)


def separate_qkv(
    prefix: str, kind: str = "weight", when: Mapping[str, Any] | None = None
) -> tuple[Row, ...]:
    """A layer's q, k and v from tensors of their own: their weight or their bias."""
    width = ("D",) if kind == "weight" else ()
    parts = tuple(
        Part(f"{prefix}{letter}_proj.{kind}", (rows, *width))
        for letter, rows in (("q", "Hd"), ("k", "Kd"), ("v", "Kd"))
    )
    name = f"{LAYER}attention.qkv.{kind}"
    return (Row(name=name, parts=parts, split=Split.HEADS, when=when or {}),)


CONTIGUOUS = (
    Rows(length="Hd"),
    Rows(start="Hd", length="Kd"),
    Rows(start="Hd+Kd", length="Kd"),
)
"""All heads of q, then all of k, then all of v."""

GROUPED = (
    Rows(length="Gd", every="Gd+2d", groups="K"),
    Rows(start="Gd", length="d", every="Gd+2d", groups="K"),
    Rows(start="Gd+d", length="d", every="Gd+2d", groups="K"),
)
"""For each head of k and v: the heads of q that share it, then itself."""


def embeddings(source: str, head: str = "lm_head") -> tuple[Row, ...]:
    """The embedding, and the head: a tensor of its own, or the embedding again.

    Tied ones are written twice: the loader's own tying fails with pipeline parallelism.
    """
    table, lm_head = ("transformer.vocab_embedding.weight", "lm_head.weight")
    return (
        *tensor(table, f"{source}.weight", ("V", "D"), Split.EMBEDDING, stage=Stage.FIRST),
        *(
            row
            for tied, origin in ((False, head), (True, source))
            for row in tensor(
                lm_head,
                f"{origin}.weight",
                ("V", "D"),
                Split.VOCABULARY,
                stage=Stage.LAST,
                when={"tie_word_embeddings": tied},
            )
        ),
    )


SIZES: dict[str, Any] = {
    name: name
    for name in (
        "architecture",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_size",
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "hidden_act",
        "norm_epsilon",
        "tie_word_embeddings",
    )
}
"""The checkpoint's fields that every model has."""

GELUS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


def activation(key: str, default: str) -> Field:
    """The field of the MLP's activation; a `gelu_fast` is `gelu_new` written otherwise."""
    translate = {"gelu_fast": "gelu_new"}
    return Field("hidden_act", (key,), str, default=default, translate=translate, only=GELUS)
