"""What an engine of the openvino target can be asked for beside its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import LimitError
from builder.limits import Limits
from builder.lora import changed_modules, places, read_adapter
from builder.targets.tensorrt_llm.config import LoraConfig

MAX_DRAFT_TOKENS = 32
"""Longer drafts cost more than they save."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What the user asked for.

    `lora` are adapters' folders: the engine takes adapters of what they change. A `max_lora_rank`
    without them makes one that takes adapters of everything that can be changed.
    """

    max_beam_width: int = 1
    lora: tuple[Path, ...] = field(default=())
    max_lora_rank: int | None = None


def lora_config(config: Mapping[str, Any], options: EngineOptions) -> LoraConfig | None:
    """Where the engine takes adapters, and how large; None where none was asked for.

    `config` is the checkpoint's. Raises ModelError for an adapter that can't be added to the
    model, and LimitError for one of a larger rank than asked for.
    """
    if not options.lora:
        if options.max_lora_rank is None:
            return None
        names = {place.module: None for place in places(config)}
        return LoraConfig(max_lora_rank=options.max_lora_rank, lora_target_modules=tuple(names))
    adapters = [read_adapter(folder) for folder in options.lora]
    modules = changed_modules(adapters, config)
    largest = max(adapters, key=lambda each: each.rank)
    rank = options.max_lora_rank or largest.rank
    if rank < largest.rank:
        raise LimitError(
            "an adapter's rank is larger than the engine would take",
            found=f"rank {largest.rank} of {largest.folder} and --max-lora-rank {rank}",
            do=f"give --max-lora-rank {largest.rank}, or leave it out",
        )
    return LoraConfig(max_lora_rank=rank, lora_target_modules=modules)


def check(options: EngineOptions, limits: Limits) -> None:
    """Raise LimitError for what no engine can have."""
    if options.max_beam_width < 1 or (options.max_lora_rank or 1) < 1:
        raise LimitError("beams and ranks are counted from 1")
    if options.max_beam_width > limits.max_num_tokens:
        raise LimitError(
            "a step computes a token of each beam of a request",
            found=f"{options.max_beam_width} beams and {limits.max_num_tokens} tokens a step",
            do="lower --max-beam-width or raise --max-num-tokens",
        )


def max_draft_tokens(limits: Limits) -> int:
    """The longest draft: a step computes it together with the token before it."""
    return min(MAX_DRAFT_TOKENS, limits.max_num_tokens - 1)
