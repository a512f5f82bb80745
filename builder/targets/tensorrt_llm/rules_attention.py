"""Rules of attention, the KV cache and in-flight batching."""

from __future__ import annotations

from builder.targets.tensorrt_llm.case import FP8_COMPUTE, Case, Rule


def _cache_type(case: Case) -> str:
    return case.config.kv_cache_type or "paged"


def _not_in_flight(case: Case) -> str | None:
    if not case.plugins.remove_input_padding:
        return "remove_input_padding disable"
    if case.plugins.gpt_attention_plugin is None:
        return "gpt_attention_plugin disable"
    return "kv_cache_type continuous" if _cache_type(case) == "continuous" else None


def _without_fmha(case: Case) -> str | None:
    on = (case.plugins.use_paged_context_fmha, case.plugins.use_fp8_context_fmha)
    if case.plugins.context_fmha or not any(on):
        return None
    return f"context_fmha disable and use_{'paged' if on[0] else 'fp8'}_context_fmha enable"


def _without_pages(case: Case) -> str | None:
    if not case.plugins.use_paged_context_fmha or _cache_type(case) == "paged":
        return None
    return f"use_paged_context_fmha enable and kv_cache_type {_cache_type(case)}"


def _int8_cache(case: Case) -> str | None:
    if case.cache != "INT8" or not case.plugins.use_paged_context_fmha:
        return None
    return "use_paged_context_fmha enable and an INT8 KV cache"


def _fp8_of_another(case: Case) -> str | None:
    if not case.plugins.use_fp8_context_fmha or case.algo in FP8_COMPUTE:
        return None
    return f"use_fp8_context_fmha enable and quant_algo {case.algo}"


def _fp8_on_old(case: Case) -> str | None:
    if not case.plugins.use_fp8_context_fmha or case.sm is None or case.sm >= 89:
        return None
    return f"use_fp8_context_fmha enable on SM {case.sm}"


def _fp8_and_wide_cache(case: Case) -> str | None:
    both = case.plugins.use_fp8_context_fmha and case.plugins.use_paged_context_fmha
    if not both or case.cache == "FP8" or case.algo not in FP8_COMPUTE:
        return None
    return f"both enabled and kv_cache_quant_algo {case.cache}"


def _fp8_cache_and_wide(case: Case) -> str | None:
    if case.cache != "FP8" or not case.plugins.use_paged_context_fmha:
        return None
    if case.plugins.use_fp8_context_fmha and case.fp8_attention:
        return None
    return "an FP8 KV cache, use_paged_context_fmha enable and no FP8 attention"


ATTENTION = (
    Rule(
        name="in-flight-batching",
        what="an engine without in-flight batching can't be served",
        found=_not_in_flight,
        do="leave remove_input_padding, gpt_attention_plugin and kv_cache_type as they are",
        source="modelConfig.h, supportsInflightBatching",
    ),
    Rule(
        name="context-fmha",
        what="paged and FP8 attention of prompts are kinds of context_fmha",
        found=_without_fmha,
        do="enable context_fmha or disable them too",
        source="builder.py, build",
    ),
    Rule(
        name="paged-context-cache",
        what="paged attention of prompts needs a paged KV cache",
        found=_without_pages,
        do="set kv_cache_type=paged or use_paged_context_fmha=disable",
        source="attentionOp.cpp",
    ),
    Rule(
        name="paged-context-int8",
        what="paged attention of prompts doesn't work with an INT8 KV cache",
        found=_int8_cache,
        do="set use_paged_context_fmha=disable, or make the checkpoint with --kv-cache fp8",
        source="builder.py, build",
    ),
    Rule(
        name="fp8-context-model",
        what="FP8 attention of prompts is only for FP8, W4A8_AWQ and NVFP4 checkpoints",
        found=_fp8_of_another,
        do="set use_fp8_context_fmha=disable",
        source="builder.py, build",
    ),
    Rule(
        name="fp8-context-gpu",
        what="FP8 attention of prompts needs Ada (SM 89) or later",
        found=_fp8_on_old,
        do="set use_fp8_context_fmha=disable",
        source="builder.py, build",
    ),
    Rule(
        name="fp8-context-cache",
        what="FP8 attention of prompts, where it is paged, needs an FP8 KV cache",
        found=_fp8_and_wide_cache,
        do="set use_fp8_context_fmha=disable, or make the checkpoint with --kv-cache fp8",
        source="builder.py, build",
    ),
    Rule(
        name="fp8-cache-context",
        what="paged attention of prompts with an FP8 KV cache needs FP8 attention",
        found=_fp8_cache_and_wide,
        do="set use_paged_context_fmha=disable, or enable use_fp8_context_fmha where it can be",
        source="builder.py, build",
    ),
)
