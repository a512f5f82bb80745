"""The model families that can be converted, by Hugging Face architecture. All of it is data."""

from __future__ import annotations

from builder.errors import UnknownFamilyError
from builder.families.llama import LLAMA
from builder.families.mistral import MISTRAL
from builder.families.qwen2 import QWEN2
from builder.families.qwen3 import QWEN3
from builder.families.table import Constant, Expected, Family, Part, Row, Split, Stage

__all__ = ["FAMILIES", "Constant", "Expected", "Family", "Part", "Row", "Split", "Stage", "of"]

FAMILIES = {
    architecture: family
    for family in (LLAMA, MISTRAL, QWEN2, QWEN3)
    for architecture in family.architectures
}


def of(architecture: str) -> Family:
    """The family of an architecture. Raises UnknownFamilyError, which lists the known ones."""
    if architecture not in FAMILIES:
        raise UnknownFamilyError(
            "the model's architecture is not known",
            found=architecture,
            do=f"known are {', '.join(sorted(FAMILIES))}",
        )
    return FAMILIES[architecture]
