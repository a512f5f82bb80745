"""A plan as JSON: every candidate, what was left out, and the recommendation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from builder import roofline
from builder.gpus import Gpu
from builder.mapping import Layout
from builder.memory import activations
from trtbuild.planning.candidates import Candidate, LeftOut, Plan
from trtbuild.planning.recommend import Recommendation


def document(plan: Plan, best: Recommendation | None) -> dict[str, Any]:
    """The plan; sizes are bytes of one GPU, speeds estimates of one engine."""
    wish = asdict(plan.wish)
    del wish["gpus"]
    return {
        "model": plan.subject.name,
        "kind": plan.subject.kind,
        "asked": wish,
        "assumed": {
            "memory_efficiency": roofline.MEMORY_EFFICIENCY,
            "compute_efficiency": roofline.COMPUTE_EFFICIENCY,
            "link_efficiency": roofline.LINK_EFFICIENCY,
            "context_bytes": activations.CONTEXT_BYTES,
            "kv_fraction": plan.wish.kv_fraction,
            "speeds": "a roofline estimate, not measured",
            "activations": "an upper estimate, not measured",
        },
        "gpus": [_gpu(gpu) for gpu in plan.wish.gpus],
        "candidates": [_candidate(plan, each) for each in plan.candidates],
        "left_out": [_left_out(each) for each in plan.left_out],
        "recommended": None
        if best is None
        else {**_candidate(plan, best.candidate), "reason": best.reason},
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return asdict(gpu)


def _candidate(plan: Plan, each: Candidate) -> dict[str, Any]:
    return {
        "gpu": each.gpu.name,
        "recipe": each.choice.name,
        **_layout(each.layout),
        "gpus": each.layout.world_size,
        "fits": each.fits,
        "memory": asdict(each.memory),
        "requests": each.batch_size,
        "estimate": None
        if each.alone is None or each.full is None
        else {
            "ttft_ms": round(each.full.ttft_ms, 1),
            "prefill_tokens_s": round(each.full.prefill_tokens_s),
            "decode_tokens_s_of_one": round(each.alone.decode_tokens_s, 1),
            "decode_tokens_s_of_all": round(each.full.decode_tokens_s, 1),
            "itl_ms_of_all": round(each.full.itl_ms, 2),
            "served_tokens_s_per_gpu": round(each.served_tokens_s(plan.wish), 1),
        },
    }


def _layout(found: Layout) -> dict[str, int]:
    return {"tp": found.tp, "pp": found.pp, "cp": found.cp, "ep": found.moe_ep}


def _left_out(each: LeftOut) -> dict[str, Any]:
    divided = {} if each.layout is None else _layout(each.layout)
    return {"gpu": each.gpu, "recipe": each.recipe, **divided, "why": each.why}
