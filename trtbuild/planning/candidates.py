"""Every way to serve a model that a plan looks at: GPU, recipe, layout, and what comes of each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from builder.encoder import refuse_encoder
from builder.errors import LimitError
from builder.gpus import Gpu
from builder.limits import KV_FRACTION, TOKENS_PER_BLOCK, context_tokens
from builder.mapping import Layout
from builder.memory import (
    MOST_BATCH_SIZE,
    Load,
    RankMemory,
    fullest_rank,
    memory_bytes,
)
from builder.memory.weights import Weights, weights_of_ranks
from builder.roofline import Roofline, Speed
from quantize.recipes import KvCache
from trtbuild.planning.recipes import Choice, choices
from trtbuild.planning.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of a plan. Requests are alike: so many tokens of prompt and answer."""

    gpus: tuple[Gpu, ...]
    recipes: tuple[str, ...] = ()
    kv_cache: KvCache = "none"
    input_len: int = 2048
    output_len: int = 512
    max_gpus: int = 8
    max_num_tokens: int = 8192
    max_batch_size: int = MOST_BATCH_SIZE
    kv_fraction: float = KV_FRACTION
    built: bool = False
    """Whether the limits are those of an engine that is there."""

    @property
    def sequence_tokens(self) -> int:
        """Prompt and answer together."""
        return self.input_len + self.output_len


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way and what comes of it: `batch_size` requests at once, 0 where it doesn't fit."""

    gpu: Gpu
    choice: Choice
    layout: Layout
    memory: RankMemory
    batch_size: int
    alone: Speed | None = None
    full: Speed | None = None

    @property
    def fits(self) -> bool:
        """Whether one request does."""
        return self.batch_size > 0

    def served_tokens_s(self, wish: Wish) -> float:
        """Tokens of answers a second, with the prompts' time counted, on each GPU."""
        if self.full is None:
            return 0.0
        prompts_s = self.batch_size * wish.input_len / self.full.prefill_tokens_s
        answers_s = wish.output_len * self.full.itl_ms / 1000
        tokens_s = self.batch_size * wish.output_len / (prompts_s + answers_s)
        return tokens_s / self.layout.world_size


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What wasn't looked at, and why; no layout means none."""

    gpu: str
    recipe: str
    why: str
    layout: Layout | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All candidates of a subject, by GPU, recipe, number of GPUs and layout."""

    subject: Subject
    wish: Wish
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]


def plan(subject: Subject, wish: Wish) -> Plan:
    """Look at every GPU, recipe and layout.

    Raises LimitError for GPUs whose memory isn't known, and requests longer than the model's.
    """
    wish = _settled(subject, wish)
    found: list[Candidate] = []
    left: list[LeftOut] = []
    for choice in choices(subject, wish.recipes, wish.kv_cache):
        able = []
        for gpu in wish.gpus:
            if why := choice.why_not(gpu):
                left.append(LeftOut(gpu=gpu.name, recipe=choice.name, why=why))
            else:
                able.append(gpu)
        for layout in [subject.layout] if subject.layout else layouts(wish.max_gpus):
            made = _divided(subject, choice, layout) if able else ""
            if isinstance(made, str):
                left += [
                    LeftOut(gpu=gpu.name, recipe=choice.name, why=made, layout=layout)
                    for gpu in able
                ]
            else:
                found += [_candidate(*made, wish, gpu, choice, layout) for gpu in able]
    places = {gpu.name: place for place, gpu in enumerate(wish.gpus)}
    found.sort(key=lambda each: places[each.gpu.name])
    return Plan(subject=subject, wish=wish, candidates=tuple(found), left_out=tuple(left))


def layouts(most: int) -> Iterator[Layout]:
    """Tensor and pipeline ranks, in powers of two, fewer GPUs and more tensor ranks first."""
    counts = [1 << n for n in range(most.bit_length())]
    for count in counts:
        yield from (Layout(tp=count // pp, pp=pp) for pp in counts if pp <= count)


def _settled(subject: Subject, wish: Wish) -> Wish:
    """An engine's own limits in place of what would be chosen."""
    for gpu in wish.gpus:
        memory_bytes(gpu)
    if subject.limits is not None:
        wish = replace(
            wish,
            max_num_tokens=subject.limits["max_num_tokens"],
            max_batch_size=subject.limits["max_batch_size"],
            built=True,
        )
    config = subject.checkpoint(Layout(), {})
    refuse_encoder(config["architecture"], "a plan")
    longest = (subject.limits or {}).get("max_seq_len") or context_tokens(config)
    if wish.sequence_tokens > longest:
        raise LimitError(
            f"--input-len and --output-len are beyond what the {subject.kind} is made for",
            found=f"{wish.input_len} + {wish.output_len} tokens",
            do=f"ask for at most {longest} together",
        )
    return wish


def _divided(
    subject: Subject, choice: Choice, layout: Layout
) -> tuple[dict[str, Any], tuple[Weights, ...]] | str:
    """The checkpoint's config in a layout and its weights, or why it can't be divided so."""
    try:
        config = choice.checkpoint(subject, layout)
        return config if isinstance(config, str) else (config, weights_of_ranks(config))
    except LimitError as error:
        return f"{error.what} ({error.found})"


def _candidate(
    config: dict[str, Any],
    weights: tuple[Weights, ...],
    wish: Wish,
    gpu: Gpu,
    choice: Choice,
    layout: Layout,
) -> Candidate:
    load = Load(
        max_batch_size=wish.max_batch_size,
        max_num_tokens=wish.max_num_tokens,
        max_seq_len=wish.sequence_tokens,
        kv_fraction=wish.kv_fraction,
    )

    def memory_for(requests: int) -> RankMemory:
        return fullest_rank(config, gpu, replace(load, max_batch_size=requests), weights)

    memory, batch = _most(memory_for, wish)
    found = Candidate(gpu=gpu, choice=choice, layout=layout, memory=memory, batch_size=batch)
    if not batch:
        return found
    roofline = Roofline.of(config, gpu, weights)
    alone, full = (
        roofline.speed(
            batch_size=size,
            input_len=wish.input_len,
            output_len=wish.output_len,
            chunk=wish.max_num_tokens,
        )
        for size in (1, batch)
    )
    return replace(found, alone=alone, full=full)


def _most(memory_for: Callable[[int], RankMemory], wish: Wish) -> tuple[RankMemory, int]:
    """The most requests that an engine built for so many holds, and its memory then.

    One built for more has less memory left for them.
    """
    most = wish.max_batch_size
    each = -(-wish.sequence_tokens // TOKENS_PER_BLOCK) * TOKENS_PER_BLOCK

    def too_many(requests: int) -> bool:
        return memory_for(requests).kv_cache_tokens // each < requests

    if wish.built:
        memory = memory_for(most)
        return memory, min(most, memory.kv_cache_tokens // each)
    batch = bisect_left(range(1, most + 1), True, key=too_many)
    return memory_for(max(1, batch)), batch
