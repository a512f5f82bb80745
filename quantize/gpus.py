"""Which recipes run on which GPU, said before anything is calibrated.

Sources: TensorRT-LLM 1.2's builder.py (what it refuses on SM 100 to 119), its groupwise GEMM (FP8
activations need SM 89 and groups of 128) and the hardware matrix in its quantization.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import LimitError
from builder.gpus import sm
from quantize.recipes import RECIPES, KvCache, Recipe

GENERATIONS: Mapping[int, str] = {
    80: "Ampere (SM 80)",
    89: "Ada (SM 89)",
    90: "Hopper (SM 90)",
    100: "Blackwell (SM 100)",
}
"""The first compute capability of a generation, as people call it."""


def why_not(
    recipe: Recipe, capability: int, *, kv_cache: KvCache = "none", group_size: int | None = None
) -> str | None:
    """Why an engine with the recipe doesn't run on this SM; None if it does."""
    for name in recipe.candidates:
        if why := why_not(RECIPES[name], capability, group_size=group_size):
            return f"its candidate {name} doesn't run there: {why}"
    if capability < recipe.min_sm:
        return f"it needs {GENERATIONS[recipe.min_sm]} or later"
    if capability in recipe.refused_sm:
        return "TensorRT-LLM 1.2 builds no INT8 or INT4 engine for SM 100 to 119"
    if kv_cache == "fp8" and capability < 89:
        return "an FP8 cache needs Ada (SM 89) or later"
    if kv_cache == "int8" and 100 <= capability < 120:
        return "TensorRT-LLM 1.2 builds no engine with an INT8 cache for SM 100 to 119"
    if group_size and recipe.gpu_group_sizes and group_size not in recipe.gpu_group_sizes:
        sizes = " or ".join(map(str, recipe.gpu_group_sizes))
        return f"TensorRT-LLM's kernel for it takes groups of {sizes}, not {group_size}"
    return None


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
    raise LimitError(f"{gpu} can't run {recipe.name}: {why}", found=f"SM {capability}", do=do)
