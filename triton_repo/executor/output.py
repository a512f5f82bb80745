"""What the executor gives back for a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


class FinishReason(Enum):
    """Why a sequence is over."""

    END_ID = "end_id"
    STOP_WORDS = "stop_words"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Perf:
    """When a request did what (ns of the monotonic clock), and what of the cache it took.

    Blocks are those of its prompt, as in the C++ executor: `kv_cache_alloc_total_blocks` were
    taken from the free ones, `kv_cache_alloc_new_blocks` of them without forgetting another's
    prefix, and `kv_cache_reused_blocks` had its beginning already.
    """

    arrival_time_ns: int
    first_scheduled_time_ns: int
    first_token_time_ns: int
    last_token_time_ns: int
    kv_cache_alloc_new_blocks: int
    kv_cache_reused_blocks: int
    kv_cache_alloc_total_blocks: int
    total_draft_tokens: int
    total_accepted_draft_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Beam:
    """One answer of a beam search; `cum_log_prob` is the sum of its `log_probs`.

    `generation_logits` float32[n, vocab] are the model's own rows, where asked for.
    """

    token_ids: list[int]
    log_probs: list[float]
    cum_log_prob: float
    finish: FinishReason
    generation_logits: Logits | None = None


class Output(NamedTuple):
    """What one step gave one sequence of a request: new token ids, log probabilities when asked.

    `finish` is set on a sequence's last output; `error` says why where it is ERROR. `perf` comes
    with that, and with a request's first. `final` is set on the request's last.
    `generation_logits` float32[n, vocab] has a row for each new token, `context_logits`
    float32[prompt, vocab] comes once, with a first token. A beam search has one output, whose
    `beams` are its answers, best first.
    """

    token_ids: list[int]
    log_probs: list[float]
    finish: FinishReason | None = None
    error: str | None = None
    sequence_index: int = 0
    final: bool = False
    generation_logits: Logits | None = None
    context_logits: Logits | None = None
    beams: tuple[Beam, ...] | None = None
    perf: Perf | None = None
