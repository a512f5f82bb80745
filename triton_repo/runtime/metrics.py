"""The executor's figures as Triton metrics, under the names and labels of TensorRT-LLM's backend.

So a dashboard or an alert made for a GPU deployment works on a CPU. Source: upstream's
custom_metrics_reporter.cc, and model_instance_state.cc for what each label counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo.executor.stats import Stats

_NONE = 0
"""There is one micro batch, no GPU, no pinned memory and no other server to share the work."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric family; `values` are read from Stats by the value of `label`."""

    name: str
    description: str
    label: str
    values: dict[str, Callable[[Stats], float]]


GAUGES = (
    Family(
        name="nv_trt_llm_request_metrics",
        description="TRT LLM request metrics",
        label="request_type",
        values={
            "active": lambda stats: stats.active_requests,
            "max": lambda stats: stats.max_requests,
            "scheduled": lambda stats: stats.scheduled_requests,
            "context": lambda stats: stats.context_requests,
            "waiting": lambda stats: max(stats.active_requests - stats.scheduled_requests, 0),
        },
    ),
    Family(
        name="nv_trt_llm_runtime_memory_metrics",
        description="TRT LLM runtime memory metrics",
        label="memory_type",
        values={
            "cpu": lambda stats: stats.cpu_bytes,
            "gpu": lambda stats: _NONE,
            "pinned": lambda stats: _NONE,
        },
    ),
    Family(
        name="nv_trt_llm_kv_cache_block_metrics",
        description="TRT LLM KV cache block metrics",
        label="kv_cache_block_type",
        values={
            "max": lambda stats: stats.max_blocks,
            "free": lambda stats: stats.free_blocks,
            "used": lambda stats: stats.used_blocks,
            "tokens_per": lambda stats: stats.tokens_per_block,
            "reused": lambda stats: stats.reused_blocks,
            "fraction": lambda stats: stats.used_fraction,
        },
    ),
    Family(
        name="nv_trt_llm_inflight_batcher_metrics",
        description="TRT LLM inflight_batcher-specific metrics",
        label="inflight_batcher_specific_metric",
        values={
            "total_context_tokens": lambda stats: stats.context_tokens,
            "generation_requests": lambda stats: stats.generation_requests,
            "micro_batch_id": lambda stats: _NONE,
            "paused_requests": lambda stats: stats.paused_requests,
        },
    ),
    Family(
        name="nv_trt_llm_general_metrics",
        description="General TRT LLM metrics",
        label="general_type",
        values={
            "timestamp": lambda stats: stats.timestamp_us,
            "iteration_counter": lambda stats: stats.iteration,
        },
    ),
)

COUNTERS = (
    Family(
        name="nv_trt_llm_disaggregated_serving_metrics",
        description="TRT LLM disaggregated serving metrics",
        label="disaggregated_serving_type",
        values={
            "kv_cache_transfer_ms": lambda stats: _NONE,
            "request_count": lambda stats: _NONE,
        },
    ),
)

BUCKETS = [10.0, 50.0, 100.0, 500.0, 1000.0]
HISTOGRAMS = {
    "nv_llm_output_token_len": "total_output_tokens",
    "nv_llm_input_token_len": "total_input_tokens",
}
"""Family → its `response_metric_type`; an observation for each prompt that has been answered."""


class Metrics:
    """A model's metrics, labelled `model` and `version` besides. For one thread at a time."""

    def __init__(self, model: str, version: str) -> None:
        self._labels = {"model": model, "version": version}
        # Triton drops a metric whose family is gone.
        self._families: list[Any] = []
        self._gauges = self._of(GAUGES, pb_utils.MetricFamily.GAUGE)
        self._counters = self._of(COUNTERS, pb_utils.MetricFamily.COUNTER)
        self._last: list[float | None] = [None] * len(self._gauges)
        self._lengths = [self._histogram(name, value) for name, value in HISTOGRAMS.items()]

    def update(self, stats: Stats) -> None:
        """Set the gauges that have changed."""
        values = [float(read(stats)) for read, _ in self._gauges]
        for (_, metric), value, last in zip(self._gauges, values, self._last, strict=True):
            if value != last:
                metric.set(value)
        self._last = list(values)

    def observe(self, *, output_tokens: int, input_tokens: int) -> None:
        """Count an answered prompt."""
        for metric, tokens in zip(self._lengths, (output_tokens, input_tokens), strict=True):
            metric.observe(tokens)

    def _of(
        self, families: tuple[Family, ...], kind: Any
    ) -> list[tuple[Callable[[Stats], float], Any]]:
        found = []
        for family in families:
            made = self._family(family.name, family.description, kind)
            for value, read in family.values.items():
                found.append((read, made.Metric(labels={**self._labels, family.label: value})))
        return found

    def _histogram(self, name: str, value: str) -> Any:
        made = self._family(name, "TRT LLM response metrics", pb_utils.MetricFamily.HISTOGRAM)
        labels = {**self._labels, "response_metric_type": value}
        return made.Metric(labels=labels, buckets=BUCKETS)

    def _family(self, name: str, description: str, kind: Any) -> Any:
        self._families.append(pb_utils.MetricFamily(name=name, description=description, kind=kind))
        return self._families[-1]
