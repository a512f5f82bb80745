"""Rules of what a GPU's generation can run, by the checkpoint's quantization."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builder.targets.tensorrt_llm.case import WEIGHT_ONLY, Case, Rule

OLDEST_SM = 80
"""Ampere."""

LEAST_SM: Mapping[str, int] = {
    "FP8": 89,
    "FP8_PER_CHANNEL_PER_TOKEN": 89,
    "W4A8_AWQ": 89,
    "NVFP4": 100,
    "W4A8_NVFP4_FP8": 100,
}
"""quant_algo → the first compute capability with the arithmetic for it."""

DATACENTER_BLACKWELL = range(100, 120)

GROUPS: Mapping[str, tuple[int, ...]] = {
    "W4A16_AWQ": (64, 128),
    "W4A16_GPTQ": (64, 128),
    "W4A8_AWQ": (128,),
}
"""quant_algo → inputs per scale that the groupwise kernel takes."""

NOT_ON_SM100 = (
    "gemm_swiglu_plugin",
    "fp8_rowwise_gemm_plugin",
    "low_latency_gemm_plugin",
    "low_latency_gemm_swiglu_plugin",
    "bert_context_fmha_fp32_acc",
)


def _on(test: Callable[[Case, int], str | None]) -> Callable[[Case], str | None]:
    """A test that is made where the GPU is known."""
    return lambda case: None if case.sm is None else test(case, case.sm)


def _too_old(case: Case, sm: int) -> str | None:
    return f"SM {sm}" if sm < OLDEST_SM else None


def _no_arithmetic(case: Case, sm: int) -> str | None:
    for algo in case.algos:
        if sm < LEAST_SM.get(algo, 0):
            return f"{algo}, which needs SM {LEAST_SM[algo]}, on SM {sm}"
    return None


def _no_fp8_cache(case: Case, sm: int) -> str | None:
    return f"an FP8 KV cache on SM {sm}" if case.cache == "FP8" and sm < 89 else None


def _blackwell(case: Case, sm: int) -> str | None:
    if sm not in DATACENTER_BLACKWELL:
        return None
    for algo in case.algos:
        smooth = algo.startswith("W8A8_SQ")
        if algo in WEIGHT_ONLY or smooth or algo == "FP8_PER_CHANNEL_PER_TOKEN":
            return f"{algo} on SM {sm}"
    return f"an INT8 KV cache on SM {sm}" if case.cache == "INT8" else None


def _sm100_plugins(case: Case, sm: int) -> str | None:
    on = [name for name in NOT_ON_SM100 if getattr(case.plugins, name)] if sm == 100 else []
    return f"{on[0]} on SM 100" if on else None


def _group_size(case: Case) -> str | None:
    for algo, said in case.algos.items():
        size = said.get("group_size")
        if algo in GROUPS and isinstance(size, int) and size not in GROUPS[algo]:
            return f"{algo} in groups of {size}, not {' or '.join(map(str, GROUPS[algo]))}"
    return None


GPU = (
    Rule(
        name="gpu-generation",
        what="TensorRT-LLM 1.2 runs on Ampere and later",
        found=_on(_too_old),
        do="choose another GPU",
        source="support matrix of the documentation",
    ),
    Rule(
        name="gpu-arithmetic",
        what="the GPU can't compute with this quantization",
        found=_on(_no_arithmetic),
        do="choose another recipe or another GPU",
        source="quantization.md, hardware matrix; FP8 from Ada, FP4 from Blackwell",
    ),
    Rule(
        name="gpu-fp8-cache",
        what="an FP8 KV cache needs Ada (SM 89) or later",
        found=_on(_no_fp8_cache),
        do="make the checkpoint with another --kv-cache",
        source="quantization.md, hardware matrix",
    ),
    Rule(
        name="gpu-blackwell-int",
        what="TensorRT-LLM 1.2 builds no INT8, INT4 or row-wise FP8 for SM 100 to 119",
        found=_on(_blackwell),
        do="choose fp8 or nvfp4, or another GPU",
        source="builder.py, build",
    ),
    Rule(
        name="gpu-sm100-plugins",
        what="the plugin isn't supported on SM 100",
        found=_on(_sm100_plugins),
        do="leave it out",
        source="plugin.py, PluginConfig.validate",
    ),
    Rule(
        name="group-size",
        what="TensorRT-LLM's kernel doesn't take groups of this size",
        found=_group_size,
        do="quantize with another --group-size",
        source="weightOnlyGroupwiseQuantMatmulPlugin.cpp",
    ),
)
