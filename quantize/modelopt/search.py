"""`auto`: ModelOpt's search of a format for each linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from builder.progress import Progress
from quantize.calibration import Tokens
from quantize.modelopt import passes
from quantize.modelopt.choices import Choices, cache_entry
from quantize.recipes import KV_CACHES, RECIPES, KvCache, modelopt_search

SCORED_BATCHES = 16
"""How many batches a search takes the gradients of, at most: they tell linears apart early."""


def search(
    model: Any,
    choices: Choices,
    batches: Sequence[Tokens],
    state: Path | None,
    progress: Progress,
) -> None:
    """Quantize a model in place, each linear by the candidate that costs least for its size.

    `state` is a folder where the search keeps what it has found of each format.
    """
    import modelopt.torch.quantization as mtq

    candidates = [RECIPES[name] for name in choices.recipe.candidates]
    looks = sum(len(passes.PASSES[each.algorithm["method"]]) for each in candidates)
    scored = min(SCORED_BATCHES, len(batches))
    cached = KV_CACHES[choices.kv_cache] is not None
    total = looks * len(batches) + scored + (len(batches) if cached else 0)
    done = 0

    def step(model: Any, batch: Tokens) -> Any:
        nonlocal done
        answer = passes.forward(model, batch)
        done += 1
        progress(min(done, total), total)
        return answer

    mtq.auto_quantize(
        model,
        data_loader=batches,
        forward_step=step,
        loss_func=_loss,
        # of AWQ, ModelOpt takes a quarter; what isn't there it doesn't miss
        num_calib_steps=4 * len(batches),
        num_score_steps=scored,
        checkpoint=None if state is None else str(state / "search.pt"),
        **modelopt_search(
            choices.recipe,
            bits_per_weight=choices.bits_per_weight,
            group_size=choices.group_size or None,
        ),
    )
    if cached:
        _calibrate_cache(model, choices.kv_cache, lambda model: [step(model, b) for b in batches])


def _calibrate_cache(model: Any, kv_cache: KvCache, loop: Callable[[Any], object]) -> None:
    """Calibrate the keys and values alone, after a search, which leaves them out."""
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.conversion import set_quantizer_by_cfg_context

    cache = cache_entry(kv_cache)
    mtq.set_quantizer_by_cfg(model, [cache])
    alone = [{"quantizer_name": "*", "enable": False}, {**cache, "enable": True}]
    with set_quantizer_by_cfg_context(model, alone):
        mtq.calibrate(model, algorithm="max", forward_loop=loop)


def _loss(answer: Any, batch: Tokens) -> Any:
    """The mean of -ln p(next token)."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = answer.logits[:, :-1].float().flatten(0, 1)
    return cross_entropy(logits, torch.from_numpy(batch[:, 1:]).flatten().to(logits.device))
