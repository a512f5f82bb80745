"""What is chosen where nothing was asked for, each value with its reason.

Every function takes a case and the values known so far, and gives flag → (value, why).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import LimitError
from builder.limits import TOKENS_PER_BLOCK
from builder.targets.tensorrt_llm import adapters
from builder.targets.tensorrt_llm.case import FP8_COMPUTE, Case

if TYPE_CHECKING:
    from builder.gpus import Gpu

Choices = dict[str, tuple[Any, str]]
Given = Mapping[str, Any]

LOW_LATENCY_BATCH_SIZE = 4
"""Up to this many sequences, the FP8 GEMM plugin has kernels of its own."""


def attention(case: Case, given: Given) -> Choices:
    """The KV cache and the attention of prompts."""
    chosen: Choices = {
        "kv_cache_type": ("paged", "in-flight batching keeps the cache in blocks"),
        "remove_input_padding": (True, "in-flight batching packs sequences"),
        "tokens_per_block": (TOKENS_PER_BLOCK, "TensorRT-LLM's since 1.0"),
    }
    fused = given.get("context_fmha", case.checkpoint["dtype"] != "float32")
    chosen["context_fmha"] = (fused, "fused" if fused else "there is no such kernel for float32")
    paged, why = _paged(case, given, fused)
    chosen["use_paged_context_fmha"] = (paged, why)
    paged = given.get("use_paged_context_fmha", paged)
    fp8 = fused and case.fp8_attention and (case.cache == "FP8" or not paged)
    chosen["use_fp8_context_fmha"] = (fp8, _why_fp8(case, fp8))
    return chosen


def _paged(case: Case, given: Given, fused: bool) -> tuple[bool, str]:
    if not fused:
        return False, "it is a kind of context_fmha"
    if given.get("kv_cache_type", "paged") != "paged":
        return False, "the cache isn't paged"
    if case.cache == "INT8":
        return False, "it doesn't work with an INT8 cache: no prefix reuse, no chunks of prompts"
    if case.cache == "FP8" and not given.get("use_fp8_context_fmha", case.fp8_attention):
        return False, "an FP8 cache needs FP8 attention for it: no prefix reuse, no chunks"
    return True, "prefixes are reused and long prompts computed in chunks"


def _why_fp8(case: Case, fp8: bool) -> str:
    if fp8:
        return f"the checkpoint is {case.algo}" + (" with an FP8 cache" if case.cache else "")
    if case.algo not in FP8_COMPUTE:
        return "the checkpoint isn't FP8"
    return "it needs an FP8 cache" if case.fp8_attention else "it needs SM 89 or later"


def gemm(case: Case, given: Given) -> Choices:
    """Who computes matrix products."""
    if given.get("weight_streaming"):
        chosen: Choices = {"gemm_plugin": (None, "only weights outside plugins are streamed")}
        if case.mixture:
            chosen["moe_plugin"] = ("auto", "experts stay on the GPU: they are in a plugin")
        return chosen
    if case.algo == "NVFP4":
        return {"gemm_plugin": ("nvfp4", "the checkpoint is NVFP4")}
    if case.algo != "FP8":
        return {"gemm_plugin": _gemm_of_dtype(case)}
    if (given.get("max_batch_size") or LOW_LATENCY_BATCH_SIZE + 1) <= LOW_LATENCY_BATCH_SIZE:
        return {"gemm_plugin": ("fp8", f"FP8, at most {LOW_LATENCY_BATCH_SIZE} sequences")}
    return {"gemm_plugin": (None, "TensorRT's own FP8 products are the faster for many sequences")}


def _gemm_of_dtype(case: Case) -> tuple[str | None, str]:
    """The guide to build-time flags recommends the plugin for 16 bits; from SM 100 on it is off."""
    if case.checkpoint["dtype"] == "float32":
        return None, "TensorRT's own: cuBLASLt is the faster only for 16-bit products"
    if case.sm is not None and case.sm >= 100:
        return None, f"TensorRT's own on SM {case.sm}: cuBLASLt is the faster before SM 100"
    return "auto", "cuBLASLt is the faster for 16-bit products before SM 100"


def drafts(case: Case, given: Given) -> Choices:
    """Speculative decoding, for which a checkpoint may have heads of its own."""
    chosen: Choices = {}
    if case.own_mode != "none":
        chosen["speculative_decoding_mode"] = (case.own_mode, "the checkpoint has heads for it")
    if case.own_draft_len and given.get("speculative_decoding_mode", case.own_mode) != "none":
        chosen["max_draft_len"] = (case.own_draft_len, "the checkpoint's heads draft as many")
    return chosen


def lora(case: Case, given: Given) -> Choices:
    """Adapters: where they go and how large they are, read from their folders."""
    folders = tuple(map(Path, given.get("lora_dir", ())))
    named = given.get("lora_target_modules", ())
    if not folders and not named:
        _refuse_useless(given)
        return {}
    chosen: Choices = {"lora_plugin": ("auto", "adapters need it")}
    if not folders or given.get("lora_ckpt_source", "hf") != "hf":
        return chosen
    found = [adapters.read(folder) for folder in folders]
    if not named:
        modules = adapters.target_modules(folders, case.checkpoint)
        chosen["lora_target_modules"] = (modules, "what the adapters change")
    rank = max(each.rank for each in found)
    if given.get("max_lora_rank", rank) < rank:
        raise LimitError(
            "an adapter's rank is larger than the engine would take",
            found=f"rank {rank} and max_lora_rank {given['max_lora_rank']}",
            do=f"give --max-lora-rank {rank}, or leave it out",
        )
    chosen["max_lora_rank"] = (rank, "the largest of the adapters")
    if any(each.dora for each in found):
        chosen["dora_plugin"] = (True, "an adapter has magnitudes")
    return chosen


def _refuse_useless(given: Given) -> None:
    """Refuse what says something of adapters where there are none."""
    for name in ("max_lora_rank", "lora_ckpt_source"):
        if name in given:
            raise LimitError(
                f"{name} is for LoRA adapters, and there are none",
                found=f"{name} {given[name]}",
                do="give --lora or lora_target_modules, or leave it out",
            )


def limits(
    case: Case, given: Given, *, gpu: Gpu | None, why_no_gpu: str, kv_fraction: float
) -> Choices:
    """Batch, lengths and tokens, by the GPU's memory; without a `gpu`, `why_no_gpu` is told."""
    from builder.memory import choose_limits

    batch, length, tokens, reasons = choose_limits(
        case.checkpoint,
        gpu=gpu,
        why_no_gpu=why_no_gpu,
        max_batch_size=given.get("max_batch_size"),
        max_seq_len=given.get("max_seq_len"),
        max_num_tokens=given.get("max_num_tokens"),
        max_beam_width=given.get("max_beam_width", 1),
        kv_fraction=kv_fraction,
    )
    chosen: Choices = {
        "max_batch_size": (batch, reasons.get("max_batch_size", "")),
        "max_seq_len": (length, reasons.get("max_seq_len", "")),
        "max_num_tokens": (tokens, reasons.get("max_num_tokens", "")),
    }
    if given.get("speculative_decoding_mode", "none") != "none":
        chosen |= _of_drafts(given, batch, tokens)
    most = chosen["max_batch_size"][0] * length
    if most < chosen["max_num_tokens"][0]:
        chosen["max_num_tokens"] = (most, "a full batch has no more")
    return chosen


def prompts(case: Case, given: Given) -> Choices:
    """The longest prompt, which paged attention computes in chunks."""
    longest, step = max(given["max_seq_len"] - 1, 1), given["max_num_tokens"]
    if given["use_paged_context_fmha"] or longest <= step:
        return {"max_input_len": (longest, "a prompt and one token of its answer")}
    return {"max_input_len": (step, "no chunks of prompts: one step must hold it")}


def _of_drafts(given: Given, batch: int, tokens: int) -> Choices:
    """A step holds the drafts of a full batch: fewer sequences, or more tokens if that is asked."""
    step = (given.get("max_draft_len") or 0) + 1
    if "max_batch_size" in given:
        need = batch * step
        return {} if need <= tokens else {"max_num_tokens": (need, "the drafts of a full batch")}
    fits = max(tokens // step, 1)
    why = f"drafts of {step - 1} tokens: a step of {tokens} holds no more"
    return {} if fits >= batch else {"max_batch_size": (fits, why)}
