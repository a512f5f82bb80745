"""Rows as the model's output tensors. Every array begins with the batch, which is 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from triton_repo.runtime.llmapi.asked import Asked
from triton_repo.runtime.llmapi.row import Row

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one response tells: a sequence's row, or the rows of all beams."""

    asked: Asked
    index: int
    rows: Sequence[Row]
    input_tokens: int
    context_logits: Any

    @property
    def prompt(self) -> str | list[int] | None:
        """What comes before the answer: it is in front of a whole one, if so asked."""
        return None if self.asked.streaming or self.asked.exclude_input else self.asked.prompt

    @property
    def ids(self) -> list[list[int]]:
        """Of each row, the prompt's included."""
        before = self.prompt if isinstance(self.prompt, list) else []
        return [[*before, *row.ids] for row in self.rows]

    @property
    def texts(self) -> list[str]:
        """Of each row, the prompt included."""
        before = self.prompt if isinstance(self.prompt, str) else ""
        return [before + row.text for row in self.rows]


Output = Callable[[Part], "Array | None"]


def _padded(lists: Sequence[Sequence[float]], pad: float, dtype: type) -> Array:
    width = max(map(len, lists))
    return np.array([[[*row, *[pad] * (width - len(row))] for row in lists]], dtype)


def _strings(values: Sequence[str]) -> Array:
    return np.array([[value.encode() for value in values]], np.object_)


def _number(value: int) -> Array:
    return np.array([[value]], np.int32)


def _output_ids(part: Part) -> Array:
    sampling = part.asked.sampling
    return _padded(part.ids, sampling.get("pad_id", sampling.get("end_id", 0)), np.int32)


def _stop_reasons(part: Part) -> Array:
    found = (row.output.stop_reason for row in part.rows)
    return _strings(["" if reason is None else str(reason) for reason in found])


def _log_probs(part: Part) -> Array | None:
    if not part.asked.log_probs:
        return None
    return _padded([row.log_probs for row in part.rows], 0.0, np.float32)


def _cumulative(part: Part) -> Array | None:
    if not part.asked.log_probs:
        return None
    return np.array([[row.total_log_prob for row in part.rows]], np.float32)


def _host(logits: Any) -> Array:
    """Logits of the LLM API, a torch tensor, as float32."""
    return np.asarray(logits.float().cpu().numpy(), np.float32)


def _context_logits(part: Part) -> Array | None:
    logits = part.context_logits
    return None if logits is None else _host(logits)[np.newaxis]


def _generation_logits(part: Part) -> Array | None:
    found = [row.output.generation_logits for row in part.rows]
    if any(each is None for each in found):
        return None
    return np.stack([_host(each) for each in found])[np.newaxis]


def _perf(group: str, name: str, dtype: type) -> Output:
    """A number of the LLM API's RequestPerfMetrics; times are ns of a clock of its own."""

    def read(part: Part) -> Array | None:
        row = part.rows[0]
        found = row.output.request_perf_metrics
        if found is None or not row.finish_reason:
            return None
        value = getattr(getattr(found, group), name)
        if isinstance(value, timedelta):
            value = value // timedelta(microseconds=1) * 1000
        return np.array([[value]], dtype)

    return read


def _perf_outputs() -> Mapping[str, Output]:
    cache, timing, draft = "kv_cache_metrics", "timing_metrics", "speculative_decoding"
    return {
        "kv_cache_reused_block": _perf(cache, "num_reused_blocks", np.int32),
        "kv_cache_reused_blocks": _perf(cache, "num_reused_blocks", np.int32),
        "kv_cache_missed_block": _perf(cache, "num_missed_blocks", np.int32),
        "kv_cache_alloc_new_blocks": _perf(cache, "num_new_allocated_blocks", np.int32),
        "kv_cache_alloc_total_blocks": _perf(cache, "num_total_allocated_blocks", np.int32),
        "kv_cache_hit_rate": _perf(cache, "kv_cache_hit_rate", np.float32),
        "arrival_time_ns": _perf(timing, "arrival_time", np.int64),
        "first_scheduled_time_ns": _perf(timing, "first_scheduled_time", np.int64),
        "first_token_time_ns": _perf(timing, "first_token_time", np.int64),
        "last_token_time_ns": _perf(timing, "last_token_time", np.int64),
        "acceptance_rate": _perf(draft, "acceptance_rate", np.float32),
        "total_accepted_draft_tokens": _perf(draft, "total_accepted_draft_tokens", np.int32),
        "total_draft_tokens": _perf(draft, "total_draft_tokens", np.int32),
    }


OUTPUTS: Mapping[str, Output] = {
    "text_output": lambda part: _strings(part.texts),
    "finish_reason": lambda part: _strings([row.finish_reason for row in part.rows]),
    "stop_reason": _stop_reasons,
    "cumulative_logprob": _cumulative,
    "output_ids": _output_ids,
    "sequence_length": lambda part: np.array([[len(ids) for ids in part.ids]], np.int32),
    "cum_log_probs": _cumulative,
    "output_log_probs": _log_probs,
    "context_logits": _context_logits,
    "generation_logits": _generation_logits,
    "batch_index": lambda part: _number(0),
    "sequence_index": lambda part: _number(part.index),
    "num_input_tokens": lambda part: _number(part.input_tokens),
    "num_output_tokens": lambda part: _number(part.rows[0].total_ids),
    **_perf_outputs(),
}
"""Output → its tensor, None where there is nothing to say."""
