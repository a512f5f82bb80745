"""Shapes in letters: "Hd" is heads times head size, "Hd+2Kd" the rows of a fused q, k and v."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from builder.families.fields import whole_number

DIMENSIONS = {
    "V": "vocab_size",
    "D": "hidden_size",
    "I": "intermediate_size",
    "d": "head_size",
    "H": "num_attention_heads",
    "K": "num_key_value_heads",
    "P": "max_position_embeddings",
    "E": "moe.num_experts",
    "M": "moe_intermediate_size",
    "S": "moe.shared_expert_intermediate_size",
}
"""Letter → field of the checkpoint's config. "G" is query heads to a key-value head, H / K."""

_TERM = re.compile(r"(\d*)([A-Za-z]*)")


def size(letters: str, config: Mapping[str, Any], more: Mapping[str, str]) -> int:
    """The number that `letters` stand for: a sum of products, such as "2", "3d" or "Hd+2Kd".

    `more` are letters of the family's own. Raises KeyError for a letter that isn't known, and
    ArtifactError for one that the config gives no number.
    """
    total = 0
    for factor, names in _terms(letters):
        for name in names:
            factor *= _dimension(name, config, more)
        total += factor
    return total


def _dimension(letter: str, config: Mapping[str, Any], more: Mapping[str, str]) -> int:
    if letter == "G":
        return int(config["num_attention_heads"] // config["num_key_value_heads"])
    return whole_number(config, more[letter] if letter in more else DIMENSIONS[letter])


@cache
def _terms(letters: str) -> tuple[tuple[int, str], ...]:
    matches = [_TERM.fullmatch(term) for term in letters.split("+")]
    return tuple((int(match[1] or 1), match[2]) for match in matches if match)
