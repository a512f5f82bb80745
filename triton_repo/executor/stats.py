"""A look at the executor from outside: the figures behind the `nv_trt_llm_*` metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """A snapshot. Each field names the label that upstream's metrics reporter gives it.

    request_type: `active_requests` running or waiting, `max_requests` that may run at once,
    `scheduled_requests` of the last step, `context_requests` of those with prompt tokens in it,
    `waiting_requests` not started yet.
    kv_cache_block_type: `max_blocks`, `free_blocks`, `used_blocks`, `tokens_per_block`,
    `reused_blocks` (ever found holding a prompt's beginning), `used_fraction`.
    memory_type: `cpu_bytes` (what the KV cache takes), gpu and pinned are 0 here.
    inflight_batcher_specific_metric: `context_tokens` and `generation_requests` of the last step,
    `paused_requests` that gave up their blocks and wait for them; there is one micro batch, 0.
    general_type: `timestamp_us` (Unix time), `iteration` (steps so far).
    """

    timestamp_us: int
    iteration: int
    active_requests: int
    max_requests: int
    scheduled_requests: int
    context_requests: int
    waiting_requests: int
    paused_requests: int
    context_tokens: int
    generation_requests: int
    max_blocks: int
    free_blocks: int
    used_blocks: int
    tokens_per_block: int
    reused_blocks: int
    cpu_bytes: int
    computed_tokens: int
    preemptions: int

    @property
    def used_fraction(self) -> float:
        """Share of the KV cache's blocks that sequences hold, 0 to 1."""
        return self.used_blocks / self.max_blocks if self.max_blocks else 0.0
