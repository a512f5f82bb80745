"""The order in which KV blocks that nobody holds are given away: TensorRT-LLM's eviction policy."""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import Callable

from triton_repo.executor.request import DEFAULT_PRIORITY, LEAST_PRIORITY

_SPARE = 16
"""How many outdated entries of the heap are always borne."""


class FreeBlocks:
    """Free blocks; the lowest priority goes first, then the one that has been free longest.

    A block with a duration falls to the default priority when it has been free for so long.
    """

    def __init__(self, blocks: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._queues: dict[int, OrderedDict[int, None]] = {}
        self._priority: dict[int, int] = {}
        self._expiry_ns: dict[int, int] = {}
        self._expiring: list[tuple[int, int]] = []
        self._clock = clock
        for block in range(blocks):
            self.put(block, LEAST_PRIORITY)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._priority)

    def __contains__(self, block: int) -> bool:
        """Whether a block is free."""
        return block in self._priority

    def put(self, block: int, priority: int, duration_ms: int | None = None) -> None:
        """Take a block back."""
        self._priority[block] = priority
        self._queues.setdefault(priority, OrderedDict())[block] = None
        if duration_ms is not None and priority != DEFAULT_PRIORITY:
            self._expiry_ns[block] = self._clock() + duration_ms * 1_000_000
            heapq.heappush(self._expiring, (self._expiry_ns[block], block))
            if len(self._expiring) > 2 * len(self._expiry_ns) + _SPARE:
                self._expiring = [(expiry, one) for one, expiry in self._expiry_ns.items()]
                heapq.heapify(self._expiring)

    def take(self) -> int:
        """Give away the one that is least worth keeping. There must be one."""
        if self._expiring:
            self._expire()
        block = next(iter(self._queues[min(self._queues)]))
        self.remove(block)
        return block

    def remove(self, block: int) -> None:
        """Give away a certain block."""
        priority = self._priority.pop(block)
        queue = self._queues[priority]
        del queue[block]
        if not queue:
            del self._queues[priority]
        self._expiry_ns.pop(block, None)

    def _expire(self) -> None:
        now = self._clock()
        while self._expiring and self._expiring[0][0] <= now:
            expiry, block = heapq.heappop(self._expiring)
            if self._expiry_ns.get(block) == expiry:
                self.remove(block)
                self.put(block, DEFAULT_PRIORITY)
