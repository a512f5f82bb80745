"""What becomes of an engine's quantization: the LLM API reads the model folder's, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.migrate.row import Fate, Outcome
from builder.targets.llmapi.model import HfModel

QUANT_ALGO = "pretrained_config.quantization.quant_algo"
KV_QUANT_ALGO = "pretrained_config.quantization.kv_cache_quant_algo"

RECIPES: Mapping[str, str] = {
    "FP8": "fp8",
    "NVFP4": "nvfp4",
    "W4A16_AWQ": "int4_awq",
    "W4A8_AWQ": "w4a8_awq",
    "MIXED_PRECISION": "auto",
}
"""An engine's algorithm → the recipe of trtbuild quantize that makes such a model folder."""

INSTEAD: Mapping[str, tuple[str, str]] = {
    "W8A8_SQ": ("fp8", "the PyTorch backend has no INT8 SmoothQuant; on Ampere take int4_awq"),
    "W8A16": ("fp8", "no tool of ours writes INT8 weight-only model folders"),
    "W4A16": ("int4_awq", "no tool of ours writes plain INT4 model folders, and AWQ is better"),
    "W4A16_GPTQ": ("int4_awq", "the PyTorch backend doesn't load GPTQ"),
    "W8A16_GPTQ": ("fp8", "the PyTorch backend doesn't load GPTQ"),
    "W4A8_QSERVE": ("w4a8_awq", "the PyTorch backend has no QServe"),
    "FP8_PER_CHANNEL_PER_TOKEN": ("fp8", "no recipe of ours scales FP8 by rows"),
    "FP8_BLOCK_SCALES": ("fp8", "no recipe of ours scales FP8 by blocks"),
}
"""An engine's algorithm, or how it begins → the recipe that comes nearest, and why another."""


def weights(algorithm: Any, model: HfModel) -> Outcome:
    """Whether the model folder's weights are quantized as the engine's were."""
    found = model.quantization
    algorithm = algorithm if algorithm is None else str(algorithm)
    if algorithm == found:
        text = "the model folder is too" if algorithm else ""
        fate = Fate.UNNEEDED if algorithm else Fate.UNUSED
        return Outcome(field=QUANT_ALGO, value=algorithm, fate=fate, text=text)
    if algorithm is None:
        text = f"but the model folder is quantized: {found}"
        return Outcome(field=QUANT_ALGO, value=algorithm, fate=Fate.UNNEEDED, text=text)
    recipe, why = RECIPES.get(algorithm), ""
    if recipe is None:
        near = next((word for word in INSTEAD if algorithm.startswith(word)), None)
        near = algorithm if algorithm in INSTEAD else near
        recipe, why = INSTEAD[near] if near else ("fp8", "trtbuild doesn't know this algorithm")
    is_now = f"the model folder is {found or 'not quantized'}"
    text = (
        f"{is_now}: trtbuild quantize {model.path} --hf FOLDER --recipe {recipe}, "
        "then --model FOLDER"
    )
    text += f" ({why})" if why else ""
    return Outcome(field=QUANT_ALGO, value=algorithm, fate=Fate.LOST, text=text)


def cache(algorithm: Any, model: HfModel) -> Outcome:
    """The KV cache's own quantization."""
    if algorithm is None:
        return Outcome(field=KV_QUANT_ALGO, value=None, fate=Fate.UNUSED)
    if algorithm not in ("FP8", "NVFP4"):
        text = "on Ada and newer: --set kv_cache_config.dtype=fp8; else the cache isn't quantized"
        return Outcome(field=KV_QUANT_ALGO, value=algorithm, fate=Fate.LOST, text=text)
    scaled = model.kv_cache == algorithm
    text = "with the model folder's scales" if scaled else "with scales of 1: the folder has none"
    return Outcome(
        field=KV_QUANT_ALGO,
        value=algorithm,
        fate=Fate.KEPT,
        text=text,
        setting="kv_cache_config.dtype",
        to=algorithm.lower(),
    )
