"""The LoRA adapters that requests name: a cache by task id, as TensorRT-LLM's has it.

A client sends an adapter's weights with the first request of a task id, later ones send the id
only. What hasn't been used for longest is forgotten when memory is needed, and then the client is
told to send it again; adapters in the prefetch folder are read again by ourselves.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ArtifactError, LimitError, RequestError
from builder.lora import read_arrays
from triton_repo.executor.adapter_form import Adapter, AdapterForm, Array

__all__ = ["Adapter", "Adapters", "CacheLimits"]


@dataclass(frozen=True, kw_only=True)
class CacheLimits:
    """TensorRT-LLM's `lora_cache_*` parameters, by their names and with their defaults.

    The memory is the host's, where a CPU engine's weights are. `optimal_adapter_size` sets the size
    of upstream's pages, and has no meaning without pages.
    """

    host_memory_bytes: int = 1 << 30
    max_adapter_size: int = 64
    optimal_adapter_size: int = 8


class Adapters:
    """The adapters of an engine. Thread-safe.

    `config` is the engine's config.json. Raises LimitError for a cache that can't hold one adapter
    of the largest size, and ArtifactError for a prefetch folder with what the engine can't take.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        limits: CacheLimits | None = None,
        prefetch_dir: Path | None = None,
    ) -> None:
        limits = limits or CacheLimits()
        self._form = AdapterForm(config)
        self._room = self._capacity = limits.host_memory_bytes
        self._cached: OrderedDict[int, Adapter] = OrderedDict()
        self._lock = threading.Lock()
        self._folders = _folders(prefetch_dir)
        if self._form.enabled:
            self._check_capacity(min(limits.max_adapter_size, self._form.max_rank))
        for task_id in self._folders:
            adapter = self._load(task_id)
            if adapter.nbytes <= self._room:
                self._keep(adapter)

    def resolve(
        self, task_id: int, weights: Array | None = None, config: Array | None = None
    ) -> Adapter:
        """The adapter of a request, kept at least as long as the request has it.

        `weights` float16 [rows, width] and `config` int32 [rows, 3 or 4] are what
        `builder.lora.arrays` gives; of an id that is known they are ignored, as by TensorRT-LLM.
        Raises RequestError for an id without weights that isn't known, for weights that don't fit
        the engine, and when all of the cache is in use.
        """
        if (weights is None) != (config is None):
            raise RequestError(
                "lora_weights and lora_config belong together",
                found="only one of them",
                param="lora_config" if config is None else "lora_weights",
            )
        self._form.require_lora()
        with self._lock:
            if (adapter := self._cached.get(task_id)) is not None:
                self._cached.move_to_end(task_id)
                return adapter
            if weights is not None and config is not None:
                adapter = self._form.adapter(task_id, weights, config)
            elif task_id in self._folders:
                adapter = self._load(task_id)
            else:
                raise RequestError(
                    f"LoRA task {task_id} not found in cache",
                    do="send lora_weights and lora_config with the request",
                    param="lora_task_id",
                )
            self._make_room(adapter)
            self._keep(adapter)
            return adapter

    @property
    def task_ids(self) -> tuple[int, ...]:
        """What is cached, the longest unused first."""
        with self._lock:
            return tuple(self._cached)

    def _load(self, task_id: int) -> Adapter:
        folder = self._folders[task_id]
        try:
            return self._form.adapter(task_id, *read_arrays(folder))
        except RequestError as error:
            raise ArtifactError(
                f"the adapter in {folder} doesn't fit the engine: {error.what}",
                found=error.found,
                do="write the repository again with trtbuild repo --lora",
            ) from error

    def _keep(self, adapter: Adapter) -> None:
        self._cached[adapter.task_id] = adapter
        self._room -= adapter.nbytes

    def _make_room(self, adapter: Adapter) -> None:
        for task_id in list(self._cached):
            if adapter.nbytes <= self._room:
                return
            self._forget(task_id)
        if adapter.nbytes > self._room:
            raise RequestError(
                f"the LoRA cache is full, could not store task {adapter.task_id}",
                found=f"{adapter.nbytes} bytes where {self._room} of {self._capacity} are not in "
                "use by running requests",
                do="try again, or raise lora_cache_host_memory_bytes",
                param="lora_task_id",
            )

    def _forget(self, task_id: int) -> None:
        """Drop an adapter unless a request has it: then it outlives our own reference."""
        place = list(self._cached)
        freed, seen = self._cached[task_id].nbytes, weakref.ref(self._cached.pop(task_id))
        used = seen()
        if used is None:
            self._room += freed
            return
        self._cached[task_id] = used
        for later in place[place.index(task_id) + 1 :]:
            self._cached.move_to_end(later)

    def _check_capacity(self, rank: int) -> None:
        needed = self._form.size_bytes(rank)
        if needed > self._capacity:
            raise LimitError(
                "the LoRA cache can't hold one adapter of the largest size",
                found=f"lora_cache_host_memory_bytes {self._capacity} where rank {rank} takes "
                f"{needed}",
                do="raise lora_cache_host_memory_bytes or lower lora_cache_max_adapter_size",
            )


def _folders(prefetch_dir: Path | None) -> dict[int, Path]:
    """Task id → folder. Folders that aren't called by a number are left alone, as upstream does."""
    if prefetch_dir is None:
        return {}
    try:
        folders = [path for path in prefetch_dir.iterdir() if path.is_dir()]
    except OSError as error:
        raise ArtifactError(
            "the folder of lora_prefetch_dir can't be read",
            found=str(error),
            do="write the repository again with trtbuild repo",
        ) from error
    found = {int(path.name): path for path in folders if path.name.isdecimal()}
    return dict(sorted(found.items()))
