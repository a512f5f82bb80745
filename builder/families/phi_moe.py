"""Phi-3.5-MoE: layer norms and projections with biases, and a router of its own, SparseMixer.

Config fields: TensorRT-LLM's `Phi3Config.from_hugging_face`; its class always has the biases, and
doesn't divide layers over pipeline ranks. transformers calls the architecture Phimoe.
"""

from __future__ import annotations

from builder.families.fields import Field, Unfit
from builder.families.llama import ATTENTION, ATTENTION_BIAS, CONFIG, UNUSED
from builder.families.mixtral import MIXTRAL_EXPERTS
from builder.families.mixture import MOE, SEVERAL_EXPERTS, SPARSE_MIXER, SWIGLU
from builder.families.phi import HEAD_SIZE, LM_HEAD_BIAS
from builder.families.rows import LAYER, embeddings, norm
from builder.families.table import Constant, Family, Present, Stage

_HF = "model.layers.{i}."

_CONFIG = {name: value for name, value in CONFIG.items() if name != "rotary_scaling"}

PHI_MOE = Family(
    architectures=("PhiMoEForCausalLM", "PhimoeForCausalLM"),
    rows=(
        *embeddings("model.embed_tokens"),
        *LM_HEAD_BIAS,
        *norm("transformer.ln_f", "model.norm", stage=Stage.LAST),
        *norm(LAYER + "input_layernorm", _HF + "input_layernorm"),
        *norm(LAYER + "post_layernorm", _HF + "post_attention_layernorm"),
        *ATTENTION,
        *ATTENTION_BIAS,
        *MIXTRAL_EXPERTS,
    ),
    config={
        **_CONFIG,
        "architecture": Constant(value="PhiMoEForCausalLM"),
        "mlp_bias": Constant(value=False),
        "attention_bias": "attn_bias",
        "rotary_pct": "rotary_pct",
        "position_embedding_type": "position_embedding_type",
        "original_max_position_embeddings": Present(attribute="original_max_position_embeddings"),
        "longrope_scaling_short_factors": Present(attribute="longrope_scaling_short_factors"),
        "longrope_scaling_long_factors": Present(attribute="longrope_scaling_long_factors"),
        "longrope_short_mscale": Present(attribute="longrope_short_mscale"),
        "longrope_long_mscale": Present(attribute="longrope_long_mscale"),
        "moe": {
            **MOE,
            "normalization_mode": Constant(value=SPARSE_MIXER),
            "sparse_mixer_epsilon": "sparse_mixer_epsilon",
        },
    },
    fields=(
        SWIGLU,
        Field("num_experts", ("num_local_experts",), default=16),
        Field("top_k", ("num_experts_per_tok",), default=2, only=(2,)),
        Field("sparse_mixer_epsilon", ("router_jitter_noise",), float, default=0.01, zero=True),
        Field("rotary_base", ("rope_parameters.rope_theta", "rope_theta"), float, default=1e6),
        Field(
            "longrope_short_mscale",
            ("rope_parameters.short_mscale", "rope_scaling.short_mscale"),
            float,
            default=None,
        ),
        Field(
            "longrope_long_mscale",
            ("rope_parameters.long_mscale", "rope_scaling.long_mscale"),
            float,
            default=None,
        ),
        Field("lm_head_bias", ("lm_head_bias",), bool, default=False),
    ),
    unfit=(
        SEVERAL_EXPERTS,
        Unfit(
            ("attn_bias", "lm_head_bias"),
            lambda values: not (values["attn_bias"] and values["lm_head_bias"]),
            "TensorRT-LLM's class always has these biases",
        ),
        Unfit(
            ("longrope_short_mscale", "longrope_long_mscale"),
            lambda values: (
                values["position_embedding_type"] == "long_rope"
                and None in (values["longrope_short_mscale"], values["longrope_long_mscale"])
            ),
            "TensorRT-LLM's class has no long rope without its magnitudes",
        ),
        HEAD_SIZE,
    ),
    unused=UNUSED,
    pipeline=False,
)
