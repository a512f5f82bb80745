"""What is asked of ModelOpt, in our words and in its."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantize.recipes import KV_CACHES, KvCache, Recipe

_CACHE = "*[kv]_bmm_quantizer"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is asked of a recipe. None is the recipe's default; `group_size` is decided already."""

    recipe: Recipe
    alpha: float | None = None
    group_size: int | None = None
    bits_per_weight: float | None = None
    kv_cache: KvCache = "none"
    seed: int = 0


def cache_entry(kv_cache: KvCache) -> dict[str, Any]:
    """ModelOpt's setting of the keys' and values' quantizers."""
    cache = KV_CACHES[kv_cache]
    off = {"quantizer_name": _CACHE, "enable": False}
    return off if cache is None else {"quantizer_name": _CACHE, "cfg": cache.attributes()}
