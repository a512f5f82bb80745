"""Which of a plan's candidates to take, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trtbuild.planning.candidates import Candidate, Plan

WORTH = 1.15
"""More GPUs must serve so much more on each: throughput estimates are no finer than that."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A candidate and the reason for it."""

    candidate: Candidate
    reason: str


def smallest(plan: Plan) -> list[Candidate]:
    """For each GPU and recipe, the best layout of the fewest GPUs that fit one request."""
    rows: dict[tuple[str, str], list[Candidate]] = {}
    for each in plan.candidates:
        rows.setdefault((each.gpu.name, each.choice.name), []).append(each)
    best = []
    for same in rows.values():
        fitting = [each for each in same if each.fits]
        if fitting:
            fewest = min(each.layout.world_size for each in fitting)
            best.append(_fastest(plan, [e for e in fitting if e.layout.world_size == fewest]))
        else:
            best.append(max(same, key=lambda each: each.layout.world_size))
    return best


def shown(plan: Plan, best: Recommendation | None) -> list[Candidate]:
    """The smallest, and the recommended one among them."""
    rows = smallest(plan)
    if best is not None and best.candidate not in rows:
        rows.append(best.candidate)
    order = {id(each): number for number, each in enumerate(plan.candidates)}
    return sorted(rows, key=lambda each: order[id(each)])


def recommend(plan: Plan) -> Recommendation | None:
    """The least loss of quality that fits, then the most tokens on each GPU; None if nothing fits.

    Of what serves about as much on each GPU, the fewest GPUs, and then the least work.
    """
    fitting = [each for each in plan.candidates if each.fits]
    if not fitting:
        return None
    least = min(each.choice.losses for each in fitting)
    good = [each for each in fitting if each.choice.losses == least]
    top = max(each.served_tokens_s(plan.wish) for each in good)
    close = [each for each in good if each.served_tokens_s(plan.wish) * WORTH >= top]
    least_work = min((each.layout.world_size, each.choice.work) for each in close)
    easy = [each for each in close if (each.layout.world_size, each.choice.work) == least_work]
    chosen = _fastest(plan, easy)
    return Recommendation(candidate=chosen, reason=_reason(plan, chosen, least, fitting))


def _fastest(plan: Plan, candidates: Iterable[Candidate]) -> Candidate:
    return max(candidates, key=lambda each: (each.served_tokens_s(plan.wish), each.layout.tp))


def _reason(plan: Plan, chosen: Candidate, least: int, fitting: list[Candidate]) -> str:
    wish, memory = plan.wish, chosen.memory
    quality = (
        "is usually close to lossless (trtbuild quantize measures it)",
        "is the least loss of quality that fits (trtbuild quantize measures it)",
        "is all that fits, and costs quality",
    )[least]
    quality = quality if chosen.choice.recipe else "is the model as it is"
    parts = [f"{chosen.choice.name} {quality}"]
    fewest = min(each.layout.world_size for each in fitting if each.gpu.name == chosen.gpu.name)
    if chosen.full is not None:
        parts.append(
            f"about {chosen.served_tokens_s(wish):,.0f} tokens/s on each GPU, prompts included"
        )
    if chosen.layout.world_size > fewest:
        gpus = "GPU" if fewest == 1 else "GPUs"
        parts.append(f"{fewest} {gpus} would do, with fewer requests and fewer tokens/s on each")
    requests = "request" if chosen.batch_size == 1 else "requests"
    parts.append(
        f"its KV cache holds {memory.kv_cache_tokens:,} tokens, {chosen.batch_size} {requests} at"
        f" once of {wish.input_len} + {wish.output_len}"
    )
    return "; ".join(parts)
