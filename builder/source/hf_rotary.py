"""Reads the rotary embedding from Hugging Face's config.json, whichever version wrote it."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from builder.errors import ModelError
from builder.source.hf_values import typed

Fields = dict[str, Any]

KEYS = ("rope_parameters", "rope_scaling")
BASE_DEFAULT = 10000.0
"""transformers' default of `rope_theta` in all families that we know."""

TYPE_ALIASES = {"su": "longrope"}
PLAIN = ("default", "none")

SCALINGS: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": ("factor",),
}
"""Scalings that TensorRT-LLM's LLaMA and QWen classes take, with the fields each needs."""

LONG_ROPE = "longrope_scaling_short_factors"
"""The attribute that families with long rope carry."""

LOCAL = "rope_local_base_freq"
"""The attribute of families whose sliding layers have a rotary embedding of their own."""


def rotary(path: Path, fields: Fields, values: Fields, carried: AbstractSet[str]) -> Fields:
    """The attributes rotary_base, rotary_scaling, rotary_pct and position_embedding_type.

    For long rope, which a family must carry, its factors too. Raises ModelError for a scaling that
    a TensorRT-LLM checkpoint can't express.
    """
    key = next((key for key in KEYS if fields.get(key)), KEYS[0])
    rope = fields.get(key) or {}
    if isinstance(rope, dict) and LOCAL in carried:
        rope = rope.get("full_attention", rope)
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ModelError(f"{path}: {key} must be one rotary embedding for all layers")
    rope = dict(rope)
    parts = (rope.pop("partial_rotary_factor", None), fields.get("partial_rotary_factor"), 1.0)
    bases = (rope.pop("rope_theta", None), fields.get("rope_theta"), BASE_DEFAULT)
    found: Fields = {
        "rotary_base": typed(path, "rope_theta", _first(bases), float),
        "rotary_pct": typed(path, "partial_rotary_factor", _first(parts), float),
        "rotary_scaling": None,
        "position_embedding_type": "rope_gpt_neox",
    }
    legacy = rope.pop("type", "default")
    kind = str(rope.pop("rope_type", legacy))
    kind = TYPE_ALIASES.get(kind, kind)
    if kind in PLAIN:
        return found
    if kind == "longrope" and LONG_ROPE in carried:
        return found | _long_rope(path, key, rope, fields, values)
    return found | {"rotary_scaling": _scaling(path, key, {"rope_type": kind, **rope}, values)}


def _first(candidates: tuple[Any, ...]) -> Any:
    return next(value for value in candidates if value is not None)


def _scaling(path: Path, key: str, rope: Fields, values: Fields) -> Fields:
    kind = rope["rope_type"]
    if kind not in SCALINGS:
        raise ModelError(
            f"{path}: {key} of this type can't be expressed in a TensorRT-LLM checkpoint",
            found=repr(kind),
            do=f"known are {', '.join(SCALINGS)}",
        )
    for name in SCALINGS[kind]:
        _positive(path, key, name, rope.get(name))
    if kind == "yarn":
        # TensorRT-LLM would take 4096 and never reads attention_factor.
        rope.setdefault("original_max_position_embeddings", values["max_position_embeddings"])
        factor = rope.pop("attention_factor", None)
        if factor and not math.isclose(factor, 0.1 * math.log(rope["factor"]) + 1, rel_tol=1e-3):
            raise ModelError(f"{path}: attention_factor can't be expressed", found=str(factor))
    return rope


def _long_rope(path: Path, key: str, rope: Fields, fields: Fields, values: Fields) -> Fields:
    """Phi-3's scaling: a factor for each frequency, one list for short prompts and one for long."""
    longest = values["max_position_embeddings"]
    name = "original_max_position_embeddings"
    original: Any = fields.get(name) or rope.get(name, longest)
    _positive(path, key, "original_max_position_embeddings", original)
    ratio = longest / original
    usual = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    factor = rope.get("attention_factor")
    if factor is not None and not math.isclose(factor, usual, rel_tol=1e-3):
        raise ModelError(f"{path}: attention_factor can't be expressed", found=str(factor))
    for name in ("short_factor", "long_factor"):
        if not isinstance(rope.get(name), list) or not rope[name]:
            raise ModelError(f"{path}: {key} has no list {name}", found=repr(rope.get(name)))
        for value in rope[name]:
            _positive(path, key, name, value)
    return {
        "position_embedding_type": "long_rope",
        "original_max_position_embeddings": original,
        LONG_ROPE: rope["short_factor"],
        "longrope_scaling_long_factors": rope["long_factor"],
    }


def _positive(path: Path, key: str, name: str, value: Any) -> None:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ModelError(f"{path}: {key} has no positive {name}", found=repr(value))
