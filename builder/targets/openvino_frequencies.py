"""How fast each pair of a head's numbers turns with the position: rotary frequencies, scaled.

Formulas: transformers 4.57 `modeling_rope_utils`, which TensorRT-LLM 1.2's
`RopeEmbeddingUtils` agrees with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float64]

SCALINGS = ("default", "linear", "llama3", "yarn", "dynamic")
"""The kinds of `rotary_scaling`. `dynamic` scales nothing within `max_position_embeddings`, which
an engine's sequences don't exceed."""


def scaling_kind(config: Mapping[str, Any]) -> str:
    """The kind of the config's `rotary_scaling`."""
    scaling = config.get("rotary_scaling") or {}
    return str(scaling.get("rope_type", scaling.get("type", "default")))


def rotary_size(config: Mapping[str, Any]) -> int:
    """How many numbers of a head are rotated, from its first."""
    if config.get("rotary_dim"):
        return int(config["rotary_dim"])
    return int(config["head_size"] * float(config.get("rotary_pct") or 1.0))


def frequencies(config: Mapping[str, Any], base: float, size: int) -> tuple[Frequencies, float]:
    """Radians per position, float64[size / 2], and the factor of cos and sin."""
    plain = base ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    if config.get("position_embedding_type") == "long_rope":
        return plain / np.array(config["longrope_scaling_short_factors"]), _long_factor(config)
    scaling, kind = config.get("rotary_scaling") or {}, scaling_kind(config)
    if kind == "linear":
        return plain / scaling["factor"], 1.0
    if kind == "llama3":
        return _llama3(plain, scaling), 1.0
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings")
        positions = original or config["max_position_embeddings"]
        return _yarn(plain, scaling, base, positions), _yarn_factor(scaling)
    return plain, 1.0


def _llama3(plain: Frequencies, scaling: Mapping[str, Any]) -> Frequencies:
    """Wavelengths longer than the original context are slowed by `factor`, short ones kept, those
    between blended linearly in 1/wavelength (Llama 3.1).
    """
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    scaled: Frequencies = plain * (kept + (1 - kept) / scaling["factor"])
    return scaled


def _yarn(
    plain: Frequencies, scaling: Mapping[str, Any], base: float, positions: int
) -> Frequencies:
    """Pairs that turn more than `beta_fast` times over the original context are kept, those that
    turn less than `beta_slow` times slowed by `factor`, those between blended (arXiv 2309.00071).
    """
    size = 2 * len(plain)

    def pair(turns: float) -> float:
        return size * math.log(positions / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = pair(scaling.get("beta_fast") or 32)
    high = pair(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    slowed = np.clip((np.arange(len(plain)) - low) / max(high - low, 0.001), 0, 1)
    scaled: Frequencies = plain * (1 - slowed + slowed / scaling["factor"])
    return scaled


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """YaRN's growth of attention with the context: 1 + weight * ln(factor) / 10."""
    return 1.0 if factor <= 1 else 1 + weight * math.log(factor) / 10


def _yarn_factor(scaling: Mapping[str, Any]) -> float:
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    factor, weight, all_dims = (
        scaling["factor"],
        scaling.get("mscale"),
        scaling.get("mscale_all_dim"),
    )
    if weight and all_dims:
        return yarn_magnitude(factor, weight) / yarn_magnitude(factor, all_dims)
    return yarn_magnitude(factor)


def _long_factor(config: Mapping[str, Any]) -> float:
    """LongRoPE's factor within the original context (arXiv 2402.13753)."""
    if config.get("longrope_short_mscale") is not None:
        return float(config["longrope_short_mscale"])
    original = config["original_max_position_embeddings"]
    growth = config["max_position_embeddings"] / original
    return 1.0 if growth <= 1 else math.sqrt(1 + math.log(growth) / math.log(original))
