"""GLM-4-9B as transformers has it ("-hf"): ChatGLM's architecture under Llama's names.

TensorRT-LLM doesn't know the architecture's name but has the class for it: the checkpoint says
that it is a ChatGLM.
"""

from __future__ import annotations

from builder.families.chatglm import CHATGLM_CONFIG
from builder.families.fields import Field
from builder.families.llama import ATTENTION, EMBEDDINGS, NORMS, SELF_ATTENTION, UNUSED
from builder.families.phi import HEAD_SIZE
from builder.families.phi3 import FUSED_MLP, SWIGLU
from builder.families.rows import separate_qkv
from builder.families.table import Constant, Family

GLM = Family(
    architectures=("GlmForCausalLM",),
    rows=(
        *EMBEDDINGS,
        *NORMS,
        *ATTENTION,
        *separate_qkv(SELF_ATTENTION, "bias", {"add_qkv_bias": True}),
        *FUSED_MLP,
    ),
    config={
        **CHATGLM_CONFIG,
        "architecture": Constant(value="ChatGLMForCausalLM"),
        "chatglm_version": Constant(value="glm4"),
        "rotary_scaling": Constant(value=None),
        "add_bias_linear": Constant(value=False),
        "add_qkv_bias": "attn_bias",
        "apply_residual_connection_post_layernorm": Constant(value=False),
        "rmsnorm": Constant(value=True),
        "tie_word_embeddings": "tie_word_embeddings",
    },
    fields=(
        SWIGLU,
        Field("attn_bias", ("attention_bias",), bool, default=True),
        Field("head_size", ("head_dim",), default=128),
        Field(
            "rotary_pct",
            ("rope_parameters.partial_rotary_factor", "partial_rotary_factor"),
            float,
            default=0.5,
        ),
    ),
    unfit=(HEAD_SIZE,),
    unused=UNUSED,
    pipeline=False,
    context=True,
)
