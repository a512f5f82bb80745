"""The model families that can be converted, by Hugging Face architecture. All of it is data."""

from __future__ import annotations

from typing import Any

from builder.errors import UnknownFamilyError
from builder.families.baichuan import BAICHUAN
from builder.families.bert import BERT, ROBERTA
from builder.families.bloom import BLOOM
from builder.families.chatglm import CHATGLM
from builder.families.cohere import COHERE
from builder.families.dbrx import DBRX
from builder.families.deepseek import DEEPSEEK
from builder.families.elsewhere import ENCODERS, LLMAPI_ONLY, UNBUILDABLE
from builder.families.exaone import EXAONE
from builder.families.falcon import FALCON
from builder.families.fields import Field, Refused, Unfit, lookup
from builder.families.gemma import GEMMA
from builder.families.gemma2 import GEMMA2
from builder.families.gemma3 import GEMMA3
from builder.families.glm import GLM
from builder.families.gpt2 import GPT2
from builder.families.gpt_bigcode import GPT_BIGCODE
from builder.families.gpt_neox import GPT_NEOX
from builder.families.gptj import GPTJ
from builder.families.granite import GRANITE
from builder.families.granite_moe import GRANITE_MOE
from builder.families.internlm2 import INTERNLM2
from builder.families.llama import LLAMA
from builder.families.mistral import MISTRAL
from builder.families.mixtral import MIXTRAL
from builder.families.mpt import MPT
from builder.families.nemotron import NEMOTRON
from builder.families.opt import OPT
from builder.families.phi import PHI
from builder.families.phi3 import PHI3
from builder.families.phi_moe import PHI_MOE
from builder.families.qwen2 import QWEN2
from builder.families.qwen3 import QWEN3
from builder.families.qwen_moe import QWEN2_MOE, QWEN3_MOE
from builder.families.skywork import SKYWORK
from builder.families.starcoder2 import STARCODER2
from builder.families.table import (
    Change,
    Constant,
    Expected,
    Family,
    Group,
    Part,
    Present,
    Row,
    Rows,
    Split,
    Stage,
)

__all__ = [
    "FAMILIES",
    "Change",
    "Constant",
    "Expected",
    "Family",
    "Field",
    "Group",
    "Part",
    "Present",
    "Refused",
    "Row",
    "Rows",
    "Split",
    "Stage",
    "Unfit",
    "is_encoder",
    "lookup",
    "of",
]

FAMILIES = {
    architecture: family
    for family in (
        BAICHUAN,
        BERT,
        BLOOM,
        CHATGLM,
        COHERE,
        DBRX,
        DEEPSEEK,
        EXAONE,
        FALCON,
        GEMMA,
        GEMMA2,
        GEMMA3,
        GLM,
        GPT2,
        GPTJ,
        GPT_BIGCODE,
        GPT_NEOX,
        GRANITE,
        GRANITE_MOE,
        INTERNLM2,
        LLAMA,
        MISTRAL,
        MIXTRAL,
        MPT,
        NEMOTRON,
        OPT,
        PHI,
        PHI3,
        PHI_MOE,
        QWEN2,
        QWEN2_MOE,
        QWEN3,
        QWEN3_MOE,
        ROBERTA,
        SKYWORK,
        STARCODER2,
    )
    for architecture in family.architectures
}


def is_encoder(architecture: Any) -> bool:
    """Whether models of an architecture give embeddings and write no text."""
    return architecture in FAMILIES and FAMILIES[architecture].encoder


def of(architecture: str) -> Family:
    """The family of an architecture.

    Raises UnknownFamilyError, which lists the known ones, or names the way for an architecture
    that TensorRT-LLM runs without engines only.
    """
    if architecture in LLMAPI_ONLY:
        raise UnknownFamilyError(
            "TensorRT-LLM never had an engine for this architecture",
            found=architecture,
            do="serve it without an engine: --target llmapi",
        )
    if reason := UNBUILDABLE.get(architecture):
        raise UnknownFamilyError(
            f"TensorRT-LLM can't build an engine for this architecture: {reason}",
            found=architecture,
            do=f"known are {', '.join(sorted(FAMILIES))}",
        )
    if architecture in ENCODERS:
        known = sorted(name for name, family in FAMILIES.items() if family.encoder)
        raise UnknownFamilyError(
            f"this encoder can't be converted: {ENCODERS[architecture]}",
            found=architecture,
            do=f"of encoders known are {', '.join(known)}",
        )
    if architecture not in FAMILIES:
        raise UnknownFamilyError(
            "the model's architecture is not known",
            found=architecture,
            do=f"known are {', '.join(sorted(FAMILIES))}",
        )
    return FAMILIES[architecture]
