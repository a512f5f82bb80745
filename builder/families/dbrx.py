"""DBRX: a mixture of experts whose matrices lie one below the other, the last of them transposed.

Tensor names: transformers' `DbrxForCausalLM`. Config fields: TensorRT-LLM's `DbrxConfig` and its
examples/models/contrib/dbrx. The layer norms have no bias.
"""

from __future__ import annotations

from builder.families.fields import Field, Unfit
from builder.families.llama import CONFIG
from builder.families.mixture import MOE, NONE, RENORMALIZE, SEVERAL_EXPERTS, experts, router
from builder.families.rows import CONTIGUOUS, LAYER, WEIGHT, norm, qkv, tensor, weight
from builder.families.table import Constant, Family, Part, Rows, Split, Stage

_HF = "transformer.blocks.{i}."
_NORMED = _HF + "norm_attn_norm."
_EXPERTS = _HF + "ffn.experts.mlp."

DBRX = Family(
    architectures=("DbrxForCausalLM",),
    rows=(
        *tensor(
            "transformer.vocab_embedding.weight",
            "transformer.wte.weight",
            ("V", "D"),
            Split.EMBEDDING,
            stage=Stage.FIRST,
        ),
        *tensor("lm_head.weight", "lm_head.weight", ("V", "D"), Split.VOCABULARY, stage=Stage.LAST),
        *norm("transformer.ln_f", "transformer.norm_f", kinds=WEIGHT, stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _NORMED + "norm_1", kinds=WEIGHT),
        *norm(LAYER + "post_layernorm", _NORMED + "norm_2", kinds=WEIGHT),
        *qkv(_NORMED + "attn.Wqkv", fused=CONTIGUOUS),
        *weight("attention.dense", _NORMED + "attn.out_proj", ("D", "Hd"), Split.COLUMNS),
        router(_HF + "ffn.router.layer.weight"),
        *experts(
            up=Part(_EXPERTS + "v1", ("EI", "D"), Rows(length="I", expert="I")),
            gate=Part(_EXPERTS + "w1", ("EI", "D"), Rows(length="I", expert="I")),
            down=Part(
                _EXPERTS + "w2",
                ("EI", "D"),
                columns=Rows(length="I", expert="I"),
                transposed=True,
            ),
        ),
    ),
    config={
        **CONFIG,
        "attn_bias": Constant(value=False),
        "mlp_bias": Constant(value=False),
        "bias": Constant(value=False),
        "tie_word_embeddings": Constant(value=False),
        "clip_qkv": "clip_qkv",
        "moe": MOE,
    },
    fields=(
        Field("max_position_embeddings", ("max_seq_len",)),
        Field("num_key_value_heads", ("attn_config.kv_n_heads",), default=1),
        Field("clip_qkv", ("attn_config.clip_qkv",), float, default=None),
        Field("rotary_base", ("attn_config.rope_theta",), float, default=10000.0),
        Field("norm_epsilon", kind=float, default=1e-5),
        Field("intermediate_size", ("ffn_config.ffn_hidden_size",), default=3584),
        Field(
            "hidden_act",
            ("ffn_config.ffn_act_fn.name",),
            str,
            default="swiglu",
            translate={"silu": "swiglu"},
            only=("swiglu",),
        ),
        Field("num_experts", ("ffn_config.moe_num_experts",), default=4),
        Field("top_k", ("ffn_config.moe_top_k",), default=1),
        Field(
            "weights_norm",
            ("ffn_config.moe_normalize_expert_weights",),
            float,
            default=1.0,
            only=(1.0,),
            null=True,
        ),
    ),
    derived={
        "normalization_mode": lambda values: (
            NONE if values["weights_norm"] is None else RENORMALIZE
        ),
    },
    unfit=(
        SEVERAL_EXPERTS,
        Unfit(
            ("tie_word_embeddings",),
            lambda values: bool(values["tie_word_embeddings"]),
            "DBRX has a head of its own",
        ),
    ),
)
