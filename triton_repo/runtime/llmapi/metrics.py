"""The LLM API's figures as Triton metrics, under the names and labels of TensorRT-LLM's backend.

So dashboards made for engines work here. The LLM API tells them only where model.yaml has
`enable_iter_perf_stats: true`. Source of its names: the stats' JSON (`numActiveRequests` and so
on); of Triton's: upstream's custom_metrics_reporter.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

_CACHE, _BATCH = "kvCacheStats", "inflightBatchingStats"
_FRACTION = "usedFraction"
"""Not in the stats: the used blocks' share of all, 0 to 1."""
FAMILIES: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    ("nv_trt_llm_request_metrics", "request_type"): {
        "active": ("numActiveRequests",),
        "max": ("maxNumActiveRequests",),
        "scheduled": (_BATCH, "numScheduledRequests"),
        "context": (_BATCH, "numContextRequests"),
        "waiting": ("numQueuedRequests",),
    },
    ("nv_trt_llm_runtime_memory_metrics", "memory_type"): {
        "cpu": ("cpuMemUsage",),
        "gpu": ("gpuMemUsage",),
        "pinned": ("pinnedMemUsage",),
    },
    ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type"): {
        "max": (_CACHE, "maxNumBlocks"),
        "free": (_CACHE, "freeNumBlocks"),
        "used": (_CACHE, "usedNumBlocks"),
        "tokens_per": (_CACHE, "tokensPerBlock"),
        "reused": (_CACHE, "reusedBlocks"),
        "fraction": (_CACHE, _FRACTION),
    },
    ("nv_trt_llm_inflight_batcher_metrics", "inflight_batcher_specific_metric"): {
        "total_context_tokens": (_BATCH, "numCtxTokens"),
        "generation_requests": (_BATCH, "numGenRequests"),
        "micro_batch_id": (_BATCH, "microBatchId"),
        "paused_requests": (_BATCH, "numPausedRequests"),
    },
    ("nv_trt_llm_general_metrics", "general_type"): {"iteration_counter": ("iter",)},
}
"""Family and its label → the label's values, and where each is in the LLM API's stats."""


class Gauges:
    """A model's metrics, labelled `model` and `version` besides."""

    def __init__(self, model: str, version: str) -> None:
        # Triton drops a metric whose family is gone
        self._families: list[Any] = []
        self._gauges: list[tuple[tuple[str, ...], Any]] = []
        for (name, label), values in FAMILIES.items():
            family = pb_utils.MetricFamily(
                name=name,
                description=f"TensorRT-LLM: {label}",
                kind=pb_utils.MetricFamily.GAUGE,
            )
            self._families.append(family)
            for value, path in values.items():
                labels = {"model": model, "version": version, label: value}
                self._gauges.append((path, family.Metric(labels=labels)))

    def update(self, stats: Mapping[str, Any]) -> None:
        """Set what an iteration's stats say."""
        cache = stats.get(_CACHE) or {}
        if cache.get("maxNumBlocks") and cache.get("usedNumBlocks") is not None:
            fraction = cache["usedNumBlocks"] / cache["maxNumBlocks"]
            stats = {**stats, _CACHE: {**cache, _FRACTION: fraction}}
        for path, gauge in self._gauges:
            value: Any = stats
            for name in path:
                value = (value or {}).get(name)
            if value is not None:
                gauge.set(float(value))
