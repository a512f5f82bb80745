"""EXAONE 3 and 3.5: Llama under GPT-2's names. Its `layer_norm_epsilon` is an RMS norm's.

Names: the table of TensorRT-LLM's `LLaMAForCausalLM.from_hugging_face`.
"""

from __future__ import annotations

from builder.families.fields import Field
from builder.families.llama import CONFIG
from builder.families.table import Constant, Family, Part, Row, Split, Stage

_LAYER = "transformer.layers.{i}."
_HF = "transformer.h.{i}."
_ATTENTION = _HF + "attn.attention."


def _one(name: str, source: str, shape: tuple[str, ...], split: Split) -> Row:
    return Row(name=_LAYER + name, parts=(Part(_HF + source, shape),), split=split)


EXAONE = Family(
    architectures=("ExaoneForCausalLM",),
    rows=(
        Row(
            name="transformer.vocab_embedding.weight",
            parts=(Part("transformer.wte.weight", ("V", "D")),),
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
            for source, tied in (("lm_head.weight", False), ("transformer.wte.weight", True))
        ),
        Row(
            name="transformer.ln_f.weight",
            parts=(Part("transformer.ln_f.weight", ("D",)),),
            split=Split.COPY,
            stage=Stage.LAST,
        ),
        _one("input_layernorm.weight", "ln_1.weight", ("D",), Split.COPY),
        _one("post_layernorm.weight", "ln_2.weight", ("D",), Split.COPY),
        Row(
            name=_LAYER + "attention.qkv.weight",
            parts=(
                Part(_ATTENTION + "q_proj.weight", ("Hd", "D")),
                Part(_ATTENTION + "k_proj.weight", ("Kd", "D")),
                Part(_ATTENTION + "v_proj.weight", ("Kd", "D")),
            ),
            split=Split.HEADS,
        ),
        _one(
            "attention.dense.weight", "attn.attention.out_proj.weight", ("D", "Hd"), Split.COLUMNS
        ),
        _one("mlp.fc.weight", "mlp.c_fc_0.weight", ("I", "D"), Split.ROWS),
        _one("mlp.gate.weight", "mlp.c_fc_1.weight", ("I", "D"), Split.ROWS),
        _one("mlp.proj.weight", "mlp.c_proj.weight", ("D", "I"), Split.COLUMNS),
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
