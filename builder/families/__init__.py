"""The model families that can be converted, by Hugging Face architecture. All of it is data."""

from __future__ import annotations

from builder.errors import UnknownFamilyError
from builder.families.elsewhere import LLMAPI_ONLY
from builder.families.fields import Field, Refused, lookup
from builder.families.llama import LLAMA
from builder.families.mistral import MISTRAL
from builder.families.qwen2 import QWEN2
from builder.families.qwen3 import QWEN3
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
    "lookup",
    "of",
]

FAMILIES = {
    architecture: family
    for family in (
        LLAMA,
        MISTRAL,
        QWEN2,
        QWEN3,
    )
    for architecture in family.architectures
}


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
    if architecture not in FAMILIES:
        raise UnknownFamilyError(
            "the model's architecture is not known",
            found=architecture,
            do=f"known are {', '.join(sorted(FAMILIES))}",
        )
    return FAMILIES[architecture]
