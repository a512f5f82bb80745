"""InternLM2 and 2.5: Llama with other names and q, k and v stored together, by key-value head.

`wqkv` has for each key-value head the query heads that share it, then the key, then the value.
Source: TensorRT-LLM's `examples/models/core/internlm2/convert_checkpoint.py`.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.llama import CONFIG
from builder.families.table import Constant, Family, Part, Row, Rows, Split, Stage

_LAYER = "transformer.layers.{i}."
_HF = "model.layers.{i}."


def _grouped(kind: str, shape: tuple[str, ...]) -> tuple[Part, ...]:
    source, every = f"{_HF}attention.wqkv.{kind}", "Gd+2d"
    return (
        Part(source, shape, rows=Rows(length="Gd", every=every, groups="K")),
        Part(source, shape, rows=Rows(start="Gd", length="d", every=every, groups="K")),
        Part(source, shape, rows=Rows(start="Gd+d", length="d", every=every, groups="K")),
    )


def _one(name: str, source: str, shape: tuple[str, ...], split: Split) -> Row:
    return Row(name=_LAYER + name, parts=(Part(_HF + source, shape),), split=split)


INTERNLM2 = Family(
    architectures=("InternLM2ForCausalLM",),
    rows=(
        Row(
            name="transformer.vocab_embedding.weight",
            parts=(Part("model.tok_embeddings.weight", ("V", "D")),),
            split=Split.EMBEDDING,
            stage=Stage.FIRST,
        ),
        *(
            Row(
                name="lm_head.weight",
                parts=(Part(source, ("V", "D")),),
                split=Split.VOCABULARY,
                stage=Stage.LAST,
                when={"tie_word_embeddings": tied},
            )
            for source, tied in (("output.weight", False), ("model.tok_embeddings.weight", True))
        ),
        Row(
            name="transformer.ln_f.weight",
            parts=(Part("model.norm.weight", ("D",)),),
            split=Split.COPY,
            stage=Stage.LAST,
        ),
        _one("input_layernorm.weight", "attention_norm.weight", ("D",), Split.COPY),
        _one("post_layernorm.weight", "ffn_norm.weight", ("D",), Split.COPY),
        Row(
            name=_LAYER + "attention.qkv.weight",
            parts=_grouped("weight", ("Hd+2Kd", "D")),
            split=Split.HEADS,
        ),
        Row(
            name=_LAYER + "attention.qkv.bias",
            parts=_grouped("bias", ("Hd+2Kd",)),
            split=Split.HEADS,
            when={"attn_bias": True},
        ),
        _one("attention.dense.weight", "attention.wo.weight", ("D", "Hd"), Split.COLUMNS),
        Row(
            name=_LAYER + "attention.dense.bias",
            parts=(Part(_HF + "attention.wo.bias", ("D",)),),
            split=Split.COPY,
            when={"attn_bias": True},
        ),
        _one("mlp.fc.weight", "feed_forward.w1.weight", ("I", "D"), Split.ROWS),
        _one("mlp.gate.weight", "feed_forward.w3.weight", ("I", "D"), Split.ROWS),
        _one("mlp.proj.weight", "feed_forward.w2.weight", ("D", "I"), Split.COLUMNS),
    ),
    config={**CONFIG, "mlp_bias": Constant(value=False)},
    fields=(Field("attn_bias", ("bias",), bool, default=True),),
    unused=("*.rotary_emb.inv_freq",),
    unused_when_tied=("output.weight",),
    context=True,
)
