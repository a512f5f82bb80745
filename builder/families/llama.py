"""Llama, and what the families derived from it share.

Tensor names and shapes: TensorRT-LLM's `LLaMAForCausalLM` and its checkpoint documentation. The
trap is in the MLP: `fc` is the projection that goes through the activation, Hugging Face's
`gate_proj`, and `gate` is `up_proj`.
"""

from __future__ import annotations

from typing import Any

from builder.families.table import Constant, Family, Part, Row, Split, Stage

_LAYER = "transformer.layers.{i}."
_HF = "model.layers.{i}."

EMBEDDINGS = (
    Row(
        name="transformer.vocab_embedding.weight",
        parts=(Part("model.embed_tokens.weight", ("V", "D")),),
        split=Split.EMBEDDING,
        stage=Stage.FIRST,
    ),
    Row(
        name="lm_head.weight",
        parts=(Part("lm_head.weight", ("V", "D")),),
        split=Split.VOCABULARY,
        stage=Stage.LAST,
        when={"tie_word_embeddings": False},
    ),
    # Tied embeddings are written twice: the loader's own tying fails with pipeline parallelism.
    Row(
        name="lm_head.weight",
        parts=(Part("model.embed_tokens.weight", ("V", "D")),),
        split=Split.VOCABULARY,
        stage=Stage.LAST,
        when={"tie_word_embeddings": True},
    ),
    Row(
        name="transformer.ln_f.weight",
        parts=(Part("model.norm.weight", ("D",)),),
        split=Split.COPY,
        stage=Stage.LAST,
    ),
)

NORMS = (
    Row(
        name=_LAYER + "input_layernorm.weight",
        parts=(Part(_HF + "input_layernorm.weight", ("D",)),),
        split=Split.COPY,
    ),
    Row(
        name=_LAYER + "post_layernorm.weight",
        parts=(Part(_HF + "post_attention_layernorm.weight", ("D",)),),
        split=Split.COPY,
    ),
)

ATTENTION = (
    Row(
        name=_LAYER + "attention.qkv.weight",
        parts=(
            Part(_HF + "self_attn.q_proj.weight", ("Hd", "D")),
            Part(_HF + "self_attn.k_proj.weight", ("Kd", "D")),
            Part(_HF + "self_attn.v_proj.weight", ("Kd", "D")),
        ),
        split=Split.HEADS,
    ),
    Row(
        name=_LAYER + "attention.dense.weight",
        parts=(Part(_HF + "self_attn.o_proj.weight", ("D", "Hd")),),
        split=Split.COLUMNS,
    ),
)

QKV_BIAS_PARTS = (
    Part(_HF + "self_attn.q_proj.bias", ("Hd",)),
    Part(_HF + "self_attn.k_proj.bias", ("Kd",)),
    Part(_HF + "self_attn.v_proj.bias", ("Kd",)),
)

ATTENTION_BIAS = (
    Row(
        name=_LAYER + "attention.qkv.bias",
        parts=QKV_BIAS_PARTS,
        split=Split.HEADS,
        when={"attn_bias": True},
    ),
    Row(
        name=_LAYER + "attention.dense.bias",
        parts=(Part(_HF + "self_attn.o_proj.bias", ("D",)),),
        split=Split.COPY,
        when={"attn_bias": True},
    ),
)

MLP = (
    Row(
        name=_LAYER + "mlp.fc.weight",
        parts=(Part(_HF + "mlp.gate_proj.weight", ("I", "D")),),
        split=Split.ROWS,
    ),
    Row(
        name=_LAYER + "mlp.gate.weight",
        parts=(Part(_HF + "mlp.up_proj.weight", ("I", "D")),),
        split=Split.ROWS,
    ),
    Row(
        name=_LAYER + "mlp.proj.weight",
        parts=(Part(_HF + "mlp.down_proj.weight", ("D", "I")),),
        split=Split.COLUMNS,
    ),
)

MLP_BIAS = (
    Row(
        name=_LAYER + "mlp.fc.bias",
        parts=(Part(_HF + "mlp.gate_proj.bias", ("I",)),),
        split=Split.ROWS,
        when={"mlp_bias": True},
    ),
    Row(
        name=_LAYER + "mlp.gate.bias",
        parts=(Part(_HF + "mlp.up_proj.bias", ("I",)),),
        split=Split.ROWS,
        when={"mlp_bias": True},
    ),
    Row(
        name=_LAYER + "mlp.proj.bias",
        parts=(Part(_HF + "mlp.down_proj.bias", ("D",)),),
        split=Split.COPY,
        when={"mlp_bias": True},
    ),
)

CONFIG: dict[str, Any] = {
    "architecture": "architecture",
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
    "position_embedding_type": Constant(value="rope_gpt_neox"),
    "rotary_base": "rotary_base",
    "rotary_scaling": "rotary_scaling",
    "sliding_window": "sliding_window",
    "tie_word_embeddings": "tie_word_embeddings",
    "attn_bias": "attn_bias",
    "mlp_bias": "mlp_bias",
}

UNUSED = ("*.rotary_emb.inv_freq", "*.self_attn.masked_bias", "*.self_attn.bias")

LLAMA = Family(
    architectures=("LlamaForCausalLM", "LLaMAForCausalLM"),
    rows=(*EMBEDDINGS, *NORMS, *ATTENTION, *ATTENTION_BIAS, *MLP, *MLP_BIAS),
    config={**CONFIG, "residual_mlp": Constant(value=False)},
    unused=UNUSED,
    context=True,
)
