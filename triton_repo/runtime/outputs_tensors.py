"""One response of `tensorrt_llm` and the tensors in it.

Shapes, and which tensor comes when, are those of TensorRT-LLM's backend: what wasn't asked for, or
isn't known yet, isn't there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triton_repo.executor.request import Beam, Output, Perf
from triton_repo.runtime.inputs import Asked

_NONE = -1
"""Pads shorter beams."""

Maker = Callable[["Part"], "NDArray[Any] | None"]


@dataclass(slots=True)
class Part:
    """What one response says: new tokens of one sequence, or all beams."""

    sequence_index: int = 0
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    cum_log_prob: float = 0.0
    generation_logits: list[NDArray[np.float32]] = field(default_factory=list)
    context_logits: NDArray[np.float32] | None = None
    beams: tuple[Beam, ...] | None = None
    perf: Perf | None = None
    error: str | None = None
    finished: bool = False

    def add(self, output: Output) -> None:
        """Put what has come to what is there."""
        self.token_ids += output.token_ids
        self.log_probs += output.log_probs
        if output.generation_logits is not None:
            self.generation_logits.append(output.generation_logits)
        if output.context_logits is not None:
            self.context_logits = output.context_logits
        self.beams, self.perf, self.error = output.beams, output.perf or self.perf, output.error
        self.finished = output.finish is not None

    @property
    def generated(self) -> int:
        """How many new tokens it has, over all beams."""
        return sum(len(beam.token_ids) for beam in self.beams or ()) or len(self.token_ids)


def makers(asked: Asked, logits_dtype: type, batch_index: int | None) -> dict[str, Maker]:
    """Output → its value in a response, None where it has none there, as upstream."""
    request = asked.request
    prompt = [] if asked.streaming or asked.exclude_input else request.input_ids
    found: dict[str, Maker] = {
        "output_ids": lambda part: _table([prompt + ids for ids in _ids(part)], np.int32),
        "sequence_length": lambda part: np.array(
            [[len(prompt) + len(ids) for ids in _ids(part)]], np.int32
        ),
    }
    if request.log_probs:
        found["output_log_probs"] = lambda part: _table(_log_probs(part), np.float32)
        found["cum_log_probs"] = _cum_log_probs
    if request.context_logits:
        found["context_logits"] = lambda part: _context_logits(part, logits_dtype)
    if request.generation_logits:
        found["generation_logits"] = lambda part: _generation_logits(part, logits_dtype)
    if asked.num_input_tokens:
        found["num_input_tokens"] = lambda part: _one(len(request.input_ids), np.int32)
    if asked.num_output_tokens:
        found["num_output_tokens"] = lambda part: _one(
            part.generated + len(prompt) * len(_ids(part)), np.int32
        )
    if (request.num_return_sequences or 1) > 1:
        found["sequence_index"] = lambda part: _one(part.sequence_index, np.int32)
    if batch_index is not None:
        found["batch_index"] = lambda part: _one(batch_index, np.int32)
    if asked.perf_metrics:
        found |= {name: _perf(name, dtype) for name, dtype in PERF.items()}
    return found


PERF: dict[str, type] = {
    "kv_cache_alloc_new_blocks": np.int32,
    "kv_cache_reused_blocks": np.int32,
    "kv_cache_alloc_total_blocks": np.int32,
    "arrival_time_ns": np.int64,
    "first_scheduled_time_ns": np.int64,
    "first_token_time_ns": np.int64,
    "last_token_time_ns": np.int64,
    "acceptance_rate": np.float32,
    "total_accepted_draft_tokens": np.int32,
    "total_draft_tokens": np.int32,
}
"""Outputs of a sequence's last response and a request's first (upstream's backend has them in all),
of which but the rate are Perf's fields."""


def _perf(name: str, dtype: type) -> Maker:
    def make(part: Part) -> NDArray[Any] | None:
        if part.perf is None:
            return None
        if name != "acceptance_rate":
            return _one(getattr(part.perf, name), dtype)
        drafted = part.perf.total_draft_tokens
        return _one(part.perf.total_accepted_draft_tokens / drafted if drafted else 0.0, dtype)

    return make


def _ids(part: Part) -> list[list[int]]:
    return [part.token_ids] if part.beams is None else [beam.token_ids for beam in part.beams]


def _log_probs(part: Part) -> list[list[float]]:
    return [part.log_probs] if part.beams is None else [beam.log_probs for beam in part.beams]


def _cum_log_probs(part: Part) -> NDArray[Any]:
    sums = [part.cum_log_prob]
    if part.beams is not None:
        sums = [beam.cum_log_prob for beam in part.beams]
    return np.array([sums], np.float32)


def _context_logits(part: Part, dtype: type) -> NDArray[Any] | None:
    return None if part.context_logits is None else part.context_logits[None].astype(dtype)


def _generation_logits(part: Part, dtype: type) -> NDArray[Any] | None:
    """[1, beams, tokens, vocab]."""
    rows = part.generation_logits
    if part.beams is not None:
        rows = [beam.generation_logits for beam in part.beams if beam.generation_logits is not None]
    if not rows:
        return None
    if part.beams is None:
        return np.concatenate(rows)[None, None].astype(dtype)
    table: NDArray[Any] = np.zeros((1, len(rows), max(map(len, rows)), rows[0].shape[1]), dtype)
    for beam, row in enumerate(rows):
        table[0, beam, : len(row)] = row
    return table


def _table(rows: list[list[Any]], dtype: type) -> NDArray[Any]:
    """[1, beams, length], shorter beams padded."""
    if len(rows) == 1:
        return np.array([rows], dtype)
    length = max(map(len, rows))
    return np.array([[row + [_NONE] * (length - len(row)) for row in rows]], dtype)


def _one(value: float, dtype: type) -> NDArray[Any]:
    return np.array([[value]], dtype)
