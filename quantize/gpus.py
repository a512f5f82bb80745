"""Which recipes run on which GPU, said before anything is calibrated, by the rules of the build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.errors import LimitError
from builder.gpus import sm
from builder.targets.tensorrt_llm.case import Case
from builder.targets.tensorrt_llm.config import BuildConfig
from builder.targets.tensorrt_llm.rules_gpu import GPU
from quantize.recipes import RECIPES, KvCache, Recipe

GENERATIONS: Mapping[int, str] = {
    80: "Ampere (SM 80)",
    89: "Ada (SM 89)",
    90: "Hopper (SM 90)",
    100: "Blackwell (SM 100)",
}
"""The first compute capability of a generation, as people call it."""


def misfit(quantization: Mapping[str, Any], capability: int) -> str | None:
    """Why no engine of a checkpoint with this `quantization` runs on this SM; None if one does."""
    case = Case(config=BuildConfig(), checkpoint={"quantization": quantization}, sm=capability)
    broken = ((rule.what, rule.found(case)) for rule in GPU)
    return next((f"{what} ({found})" for what, found in broken if found), None)


def why_not(
    recipe: Recipe, capability: int, *, kv_cache: KvCache = "none", group_size: int | None = None
) -> str | None:
    """Why an engine with the recipe doesn't run on this SM; None if it does."""
    block: dict[str, Any] = _form(recipe, group_size)
    if kv_cache != "none":
        block["kv_cache_quant_algo"] = kv_cache.upper()
    forms = {name: _form(RECIPES[name], group_size) for name in recipe.candidates}
    return misfit({**block, "quantized_layers": forms}, capability)


def refuse(
    recipe: Recipe, gpu: str, *, kv_cache: KvCache = "none", group_size: int | None = None
) -> None:
    """Raise LimitError, saying what runs instead, if a GPU can't run the recipe.

    `group_size` is what the linears will have, None while that isn't known.
    """
    capability = sm(gpu)
    why = why_not(recipe, capability, kv_cache=kv_cache, group_size=group_size)
    if why is None:
        return
    fits = [name for name, each in RECIPES.items() if why_not(each, capability) is None]
    if recipe.name in fits:
        do = "choose another --kv-cache or --group-size"
    else:
        do = f"choose {' or '.join(fits)}" if fits else "TensorRT-LLM runs nothing quantized there"
    raise LimitError(f"{gpu} can't run {recipe.name}: {why}", do=do)


def least_sm(recipe: Recipe) -> int:
    """The first generation that runs it."""
    return next(first for first in GENERATIONS if why_not(recipe, first) is None)


def _form(recipe: Recipe, group_size: int | None) -> dict[str, Any]:
    return {"quant_algo": recipe.quant_algo, "group_size": group_size}
