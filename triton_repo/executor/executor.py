"""The executor: takes requests, steps the engine on a thread of its own, gives tokens back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from builder.errors import RequestError
from builder.limits import TOKENS_PER_BLOCK
from triton_repo.executor.admission import Admission
from triton_repo.executor.blocks import BlockManager
from triton_repo.executor.config import ExecutorConfig
from triton_repo.executor.decoder import Decoder
from triton_repo.executor.group import Group, Sink
from triton_repo.executor.output import FinishReason
from triton_repo.executor.request import Request
from triton_repo.executor.runner import Runner
from triton_repo.executor.scheduler import Chunk, Scheduler
from triton_repo.executor.stats import Stats

__all__ = ["Executor", "ExecutorConfig", "Handle", "Sink"]

Handle = Group
"""What `submit` gives back and `cancel` takes."""


class _Step(NamedTuple):
    """What the last step computed."""

    requests: int = 0
    context_requests: int = 0
    context_tokens: int = 0


class Executor:
    """Batches requests in flight. Thread-safe; sinks are called on the executor's thread.

    A sink gets outputs until one is `final`; it must be quick, and may not raise. `between` is
    called after each step, for what had better not share the cores with one.
    """

    def __init__(self, engine: Path, config: ExecutorConfig) -> None:
        self.config = config
        self.between: Callable[[], object] = lambda: None
        blocks = config.kv_cache_tokens // TOKENS_PER_BLOCK
        self._runner = Runner(engine, config.dtype, blocks, threads=config.threads)
        self._scheduler = Scheduler(
            BlockManager(blocks, TOKENS_PER_BLOCK, reuse=config.enable_kv_cache_reuse),
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            guaranteed_no_evict=config.guaranteed_no_evict,
            chunked_context=config.enable_chunked_context,
        )
        self._decoder = Decoder(self._scheduler)
        self._admission = Admission(
            vocab_size=config.vocab_size,
            max_batch_size=config.max_batch_size,
            max_total_tokens=min(config.max_seq_len, blocks * TOKENS_PER_BLOCK),
            max_num_tokens=config.max_num_tokens,
            max_beam_width=config.max_beam_width,
            max_draft_len=config.max_draft_len,
            chunked_context=config.enable_chunked_context,
            max_logits_bytes=config.max_logits_bytes,
        )
        self._inbox: deque[Group] = deque()
        self._cancelled: deque[Group] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._last = _Step()
        self._iteration = 0
        self.computed_tokens = 0
        self._thread = threading.Thread(target=self._loop, name="executor", daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> Handle:
        """Queue a request; its outputs go to `sink`. Raises RequestError for what can't run."""
        self._admission.check(request)
        group = Group(request, self._admission.max_total_tokens, sink)
        self._check_room(group)
        with self._wake:
            if self._closed:
                raise RequestError("the executor is closing")
            self._check_queue(group)
            self._inbox.append(group)
            self._wake.notify()
        return group

    def cancel(self, handle: Handle) -> None:
        """Free a request's places before the next step; its sink gets CANCELLED unless over."""
        with self._wake:
            self._cancelled.append(handle)
            self._wake.notify()

    def close(self) -> None:
        """Stop after the step in hand; requests that aren't over end as cancelled."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def stats(self) -> Stats:
        """How it stands now. Cheap, and safe from any thread."""
        scheduler, blocks, last = self._scheduler, self._scheduler.blocks, self._last
        waiting = scheduler.queued + len(self._inbox)
        free = blocks.free
        return Stats(
            timestamp_us=time.time_ns() // 1000,
            iteration=self._iteration,
            active_requests=self.active,
            max_requests=self.config.max_batch_size,
            scheduled_requests=last.requests,
            context_requests=last.context_requests,
            waiting_requests=waiting,
            paused_requests=scheduler.paused,
            context_tokens=last.context_tokens,
            generation_requests=last.requests - last.context_requests,
            max_blocks=blocks.total,
            free_blocks=free,
            used_blocks=blocks.total - free,
            tokens_per_block=blocks.block_size,
            reused_blocks=scheduler.reused_blocks,
            cpu_bytes=self._runner.cache_bytes,
            computed_tokens=self.computed_tokens,
            preemptions=scheduler.preemptions,
        )

    @property
    def active(self) -> int:
        """How many requests are running or waiting."""
        return len(self._scheduler.running) + len(self._scheduler.waiting) + len(self._inbox)

    @property
    def preemptions(self) -> int:
        """How often a running request had to give up its blocks so far."""
        return self._scheduler.preemptions

    @property
    def free_blocks(self) -> int:
        """How many KV-cache blocks no sequence holds."""
        return self._scheduler.blocks.free

    def _check_room(self, group: Group) -> None:
        blocks = self._scheduler.blocks
        most = group.most_blocks(blocks.block_size)
        if most > blocks.total:
            name = "beam_width" if group.search else "num_return_sequences"
            raise RequestError(
                f"the KV cache can't hold the request's answers together: its {blocks.total} "
                f"blocks of {blocks.block_size} tokens are too few",
                found=f"up to {most} blocks for {len(group.request.input_ids)} tokens of prompt "
                f"and {group.max_total_tokens - group.prompt_len} of each answer",
                do=f"lower {name} or request_output_len",
                param=name,
            )

    def _check_queue(self, group: Group) -> None:
        most = self.config.max_queue_size
        queued = self._scheduler.queued + sum(one.places for one in self._inbox)
        if most and queued + group.places > most:
            raise RequestError(
                f"Maximum queue size of {most} has been reached, please try again later"
            )

    def _loop(self) -> None:
        while self._collect():
            self._advance()
        self._take_inbox()
        for group in [*self._scheduler.running, *self._scheduler.waiting]:
            self._decoder.end(group, FinishReason.CANCELLED)

    def _advance(self) -> None:
        """One step; apart from the loop, which holds nothing of it while it waits for the next."""
        chunks = self._scheduler.schedule()
        if not chunks:
            return
        try:
            self._step(chunks)
        except Exception as error:  # noqa: BLE001 - a failed step must not hang its clients
            for group in {chunk.group: None for chunk in chunks}:
                if not group.over:
                    self._decoder.end(group, FinishReason.ERROR, str(error))
        self.between()

    def _collect(self) -> bool:
        """Take what has come in since the last step, wait if there is nothing; False at the end."""
        scheduler = self._scheduler
        with self._wake:
            while not (self._closed or self._inbox or self._cancelled or scheduler.busy):
                self._last = _Step()
                self._wake.wait()
            self._take_inbox()
            cancelled, self._cancelled = self._cancelled, deque()
        for group in cancelled:
            if not group.over:
                self._decoder.end(group, FinishReason.CANCELLED)
        return not self._closed

    def _take_inbox(self) -> None:
        while self._inbox:
            self._scheduler.add(self._inbox.popleft())

    def _step(self, chunks: list[Chunk]) -> None:
        logits = self._runner.run(chunks, self._scheduler.blocks.take_copies())
        self._count(chunks)
        self._scheduler.settle(chunks)
        self._decoder.advance(chunks, logits)

    def _count(self, chunks: list[Chunk]) -> None:
        requests, prompts, prompt_tokens = set(), 0, 0
        for group, sequence, end, _ in chunks:
            requests.add(group)
            tokens = end - sequence.computed
            self.computed_tokens += tokens
            if len(sequence.tokens) == group.prompt_len:
                prompts += 1
                prompt_tokens += tokens
        self._last = _Step(len(requests), prompts, prompt_tokens)
        self._iteration += 1
