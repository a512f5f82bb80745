"""What a client asks of the executor, with the C++ executor's meaning of every default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from builder.errors import RequestError
from triton_repo.executor.output import Beam, FinishReason, Output, Perf

if TYPE_CHECKING:
    from triton_repo.executor.adapters import Adapter
    from triton_repo.executor.guide import Guide

__all__ = [
    "Beam",
    "BeamParams",
    "FinishReason",
    "Output",
    "Perf",
    "Request",
    "Retention",
    "SamplingParams",
]

DEFAULT_PRIORITY = 35
LEAST_PRIORITY, MOST_PRIORITY = 0, 100
"""KvCacheRetentionConfig's; blocks of the least priority are given away first."""
_INT32_MAX = 2**31 - 1
_SAMPLING = {
    "temperature": (1e-6, 1e6, "temperature"),
    "runtime_top_k": (0, _INT32_MAX, "top_k"),
    "runtime_top_p": (0, 1, "top_p"),
    "runtime_top_p_min": (0, 1, "top_p_min"),
    "runtime_top_p_decay": (1e-6, 1, "top_p_decay"),
    "runtime_top_p_reset_ids": (-1, _INT32_MAX, "top_p_reset_id"),
    "repetition_penalty": (1e-6, 1e6, "repetition_penalty"),
    "presence_penalty": (-1e6, 1e6, "presence_penalty"),
    "frequency_penalty": (-1e6, 1e6, "frequency_penalty"),
    "min_tokens": (0, _INT32_MAX, "min_tokens"),
    "seed": (0, 2**64 - 1, "seed"),
}
"""Triton input → least value, most, SamplingParams field. NaN lies in no range."""
_BEAMS = {
    "beam_width": (1, 1024, "width"),
    "len_penalty": (0, 1e6, "length_penalty"),
    "early_stopping": (0, _INT32_MAX, "early_stopping"),
    "beam_search_diversity_rate": (0, 1e6, "diversity_rate"),
}
"""Triton input → least value, most, BeamParams field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How the next token is chosen. The defaults are those of TensorRT-LLM's executor.

    With `top_k` 0 and `top_p` 0 the choice is greedy; `top_k` 0 with a `top_p` above 0 samples
    from the nucleus (1: from all). The nucleus shrinks by `top_p_decay` with each token, not
    below `top_p_min`, until `top_p_reset_id` comes. The seed is constant unless set.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    top_p_min: float = 1e-6
    top_p_decay: float = 1.0
    top_p_reset_id: int = -1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what the C++ executor refuses, and what leaves no finite logit."""
        _check_ranges(self, _SAMPLING)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.top_k == 1 or (self.top_k == 0 and self.top_p == 0)

    @property
    def penalised(self) -> bool:
        """Whether the tokens so far change the logits."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamParams:
    """A beam search, with the defaults of the C++ executor. A `width` of 1 is no beam search.

    A finished beam's rank is its log probability divided by its length ** `length_penalty`.
    `early_stopping` 1 ends once `width` beams are finished; 0 once the best unfinished beam,
    were it to end now, is behind them; any other once none can get ahead of them at any length.
    `diversity_rate` times the rank of the beam that it continues is added to a candidate's score.
    """

    width: int
    length_penalty: float = 0.0
    early_stopping: int = 1
    diversity_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what the C++ executor refuses."""
        _check_ranges(self, _BEAMS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How long the KV blocks of a request are kept for others: KvCacheRetentionConfig.

    `ranges` of the prompt, each (start, end or None, priority, duration in ms or None), rise and
    don't overlap. A block has the priority of the range in which its first token lies; blocks of
    the lowest priority are given away first. After its duration it has the default priority.
    """

    ranges: tuple[tuple[int, int | None, int, int | None], ...] = ()
    decode_priority: int = DEFAULT_PRIORITY
    decode_duration_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the C++ executor refuses."""
        after = 0
        for start, end, priority, _ in self.ranges:
            if start < after or (end is not None and end <= start) or after == _INT32_MAX:
                raise RequestError(
                    "retention_token_range_starts and _ends must be ranges that rise and don't "
                    "overlap",
                    found=f"{start} to {'the end' if end is None else end}",
                    param="retention_token_range_starts",
                )
            after = _INT32_MAX if end is None else end
            _check_priority(priority, "retention_token_range_priorities")
        _check_priority(self.decode_priority, "retention_decode_priority")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A prompt and how to go on from it. `end_id` -1 never ends; words are token ids.

    `embedding_bias` float32[vocab] is added to every row of logits. `draft_ids` are guesses of
    the first tokens; `draft_logits` float32[n, vocab] what the draft model thought of each.
    `num_return_sequences` answers are sampled (None: one), or come back of a beam search (all).
    With `normalize_log_probs` those of a top-k draw are of the k tokens only.
    `context_logits` and `generation_logits` ask for the model's own rows, before any processing.
    `streaming` says that what is made is taken at once, not at the end.
    """

    input_ids: list[int]
    max_tokens: int
    end_id: int = -1
    stop_words: tuple[tuple[int, ...], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    embedding_bias: NDArray[np.float32] | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    beams: BeamParams | None = None
    num_return_sequences: int | None = None
    log_probs: bool = False
    normalize_log_probs: bool = True
    context_logits: bool = False
    generation_logits: bool = False
    streaming: bool = False
    draft_ids: tuple[int, ...] = ()
    draft_logits: NDArray[np.float32] | None = None
    draft_acceptance_threshold: float | None = None
    guide: Guide | None = None
    adapter: Adapter | None = None
    retention: Retention | None = None

    @property
    def beam_width(self) -> int:
        """How many beams are searched; 1 for none."""
        return self.beams.width if self.beams else 1

    @property
    def answer_count(self) -> int:
        """How many answers come back."""
        given = self.num_return_sequences
        return self.beam_width if given is None else given


def _check_ranges(params: object, ranges: Mapping[str, tuple[float, float, str]]) -> None:
    for name, (low, high, field_name) in ranges.items():
        value = getattr(params, field_name)
        if not low <= value <= high:
            raise RequestError(
                f"{name} must lie between {low:g} and {high:g}",
                found=f"{value:g}",
                do="for greedy, set runtime_top_k to 1" if name == "temperature" else None,
                param=name,
            )


def _check_priority(value: int, name: str) -> None:
    if not LEAST_PRIORITY <= value <= MOST_PRIORITY:
        raise RequestError(
            f"{name} must lie between {LEAST_PRIORITY} and {MOST_PRIORITY}",
            found=str(value),
            param=name,
        )
