"""Which GPU is which generation, and which recipes run there, said before anything is calibrated.

Sources: NVIDIA's list of CUDA compute capabilities; TensorRT-LLM 1.2's builder.py (what it
refuses on SM 100 to 119), its groupwise GEMM (FP8 activations need SM 89 and groups of 128) and
the hardware matrix in its quantization.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.errors import LimitError
from quantize.recipes import RECIPES, KvCache, Recipe

GPUS: Mapping[str, int] = {
    "V100": 70,
    "T4": 75,
    "RTX 20#0": 75,
    "A100": 80,
    "A800": 80,
    "A30": 80,
    "A2": 86,
    "A10": 86,
    "A16": 86,
    "A40": 86,
    "RTX 30#0": 86,
    "RTX A#000": 86,
    "RTX A#500": 86,
    "Orin": 87,
    "RTX 40#0": 89,
    "RTX #000 Ada": 89,
    "RTX #500 Ada": 89,
    "L2": 89,
    "L4": 89,
    "L20": 89,
    "L40": 89,
    "H20": 90,
    "H100": 90,
    "H200": 90,
    "H800": 90,
    "GH200": 90,
    "B100": 100,
    "B200": 100,
    "GB200": 100,
    "B300": 103,
    "GB300": 103,
    "Thor": 110,
    "RTX 50#0": 120,
    "RTX PRO #000": 120,
    "RTX PRO #500": 120,
    "DGX Spark": 121,
    "GB10": 121,
}
"""GPU → its compute capability ("SM", 89 for 8.9). `#` is a digit from 1 to 9."""

GENERATIONS: Mapping[int, str] = {
    80: "Ampere (SM 80)",
    89: "Ada (SM 89)",
    90: "Hopper (SM 90)",
    100: "Blackwell (SM 100)",
}
"""The first compute capability of a generation, as people call it."""

_BRANDS = re.compile(r"nvidia|geforce|tesla|quadro|jetson|rtx|dgx|[-_\s]")
_SM = re.compile(r"(?:sm|compute)?(\d{2,3})[af]?")


def sm(gpu: str) -> int:
    """The compute capability of a GPU by name ("H100", "NVIDIA GeForce RTX 4090", "sm90", "8.9").

    Raises LimitError for a name that isn't in GPUS.
    """
    name = re.sub(r"(\d+) ?gb.*|[-_ ](sxm|pcie|nvl).*", "", gpu.strip().lower())
    name = _BRANDS.sub("", name)
    if found := _SM.fullmatch(name.replace(".", "")):
        return int(found[1])
    for key, value in GPUS.items():
        if re.match(_BRANDS.sub("", key.lower()).replace("#", "[1-9]") + r"(?!\d)", name):
            return value
    raise LimitError(
        "no such GPU is known",
        found=f"--gpu {gpu}",
        do=f"give its compute capability (sm89) or one of {', '.join(GPUS)}",
    )


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
