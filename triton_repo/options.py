"""What a user may choose about a repository."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """Settings of the models; None leaves the choice to the engine or to the backend.

    `max_queue_size` 0 is no limit. `kv_cache_free_gpu_mem_fraction` is of the memory that is free
    once the engine is loaded, `max_tokens_in_paged_kv_cache` a cap in tokens. The scheduler policy
    isn't upstream's guaranteed_no_evict: that sets aside the longest possible answer, which for a
    client that names no limit is the whole sequence length. Nor is the period in which clients that
    went away are looked for upstream's 100 ms: a look takes microseconds, a slot is worth a step.
    """

    max_queue_delay_microseconds: int = 0
    max_queue_size: int = 0
    batch_scheduler_policy: str = "max_utilization"
    cancellation_check_period_ms: int = 10
    enable_kv_cache_reuse: bool | None = None
    enable_chunked_context: bool | None = None
    kv_cache_free_gpu_mem_fraction: float | None = None
    max_tokens_in_paged_kv_cache: int | None = None
    preprocessing_instance_count: int = 1
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
