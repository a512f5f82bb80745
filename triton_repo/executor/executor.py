"""The executor: takes requests, steps the engine on a thread of its own, gives tokens back."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ArtifactError, RequestError
from builder.limits import TOKENS_PER_BLOCK
from triton_repo.executor.blocks import BlockManager
from triton_repo.executor.request import FinishReason, Output, Request
from triton_repo.executor.runner import Runner
from triton_repo.executor.sampler import Choice, sample
from triton_repo.executor.scheduler import Chunk, Scheduler
from triton_repo.executor.sequence import Sequence

Sink = Callable[[Output], None]


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """The engine's limits, and how the executor schedules within them."""

    dtype: str
    vocab_size: int
    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    kv_cache_tokens: int
    enable_kv_cache_reuse: bool = True
    guaranteed_no_evict: bool = False
    threads: int = 0

    @classmethod
    def of(cls, engine: Path, **settings: Any) -> ExecutorConfig:
        """The limits in an engine folder's `config.json`; `settings` are laid over them."""
        try:
            fields = json.loads((engine / "config.json").read_text())
            model, build = fields["pretrained_config"], fields["build_config"]
            limits = {
                "dtype": model["dtype"],
                "vocab_size": model["vocab_size"],
                "max_batch_size": build["max_batch_size"],
                "max_seq_len": build["max_seq_len"],
                "max_num_tokens": build["max_num_tokens"],
                "kv_cache_tokens": model["runtime_defaults"]["kv_cache_config"]["max_tokens"],
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{engine} is not an engine for this machine",
                found=f"config.json: {error!r}",
                do="build one with trtbuild build --target openvino",
            ) from error
        return cls(**{**limits, **settings})


class Executor:
    """Batches requests in flight. Thread-safe; sinks are called on the executor's thread.

    A sink gets outputs until one has `finish`; it must be quick, and may not raise.
    """

    def __init__(self, engine: Path, config: ExecutorConfig) -> None:
        self.config = config
        blocks = config.kv_cache_tokens // TOKENS_PER_BLOCK
        self._runner = Runner(engine, config.dtype, blocks, threads=config.threads)
        self._scheduler = Scheduler(
            BlockManager(blocks, TOKENS_PER_BLOCK, reuse=config.enable_kv_cache_reuse),
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            guaranteed_no_evict=config.guaranteed_no_evict,
        )
        self._max_total_tokens = min(config.max_seq_len, blocks * TOKENS_PER_BLOCK)
        self._inbox: deque[Sequence] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self.computed_tokens = 0
        self._thread = threading.Thread(target=self._loop, name="executor", daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> Sequence:
        """Queue a request; its outputs go to `sink`. Raises RequestError for what can't run."""
        self._check(request)
        sequence = Sequence(request, self._max_total_tokens, sink)
        with self._wake:
            if self._closed:
                raise RequestError("the executor is closing")
            self._inbox.append(sequence)
            self._wake.notify()
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Free a request's slot before the next step; its sink gets CANCELLED unless it is over."""
        with self._wake:
            sequence.cancelled = True
            self._wake.notify()

    def close(self) -> None:
        """Stop after the step in hand; requests that aren't over end as cancelled."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

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

    def _check(self, request: Request) -> None:
        if not request.input_ids:
            raise RequestError("the prompt is empty", param="input_ids")
        if request.max_tokens < 1:
            raise RequestError(
                "at least one token must be asked for",
                found=str(request.max_tokens),
                param="request_output_len",
            )
        if len(request.input_ids) >= self._max_total_tokens:
            raise RequestError(
                f"prompt length {len(request.input_ids)} exceeds the engine's limit: prompt and "
                f"answer together hold {self._max_total_tokens} tokens",
                param="input_ids",
            )
        if request.end_id >= self.config.vocab_size:
            raise RequestError(
                f"end_id must lie below {self.config.vocab_size}, or be -1",
                found=str(request.end_id),
                param="end_id",
            )
        low, high = min(request.input_ids), max(request.input_ids)
        if low < 0 or high >= self.config.vocab_size:
            raise RequestError(
                f"token ids must lie in [0, {self.config.vocab_size})",
                found=str(low if low < 0 else high),
                param="input_ids",
            )

    def _loop(self) -> None:
        scheduler = self._scheduler
        while self._collect():
            chunks = scheduler.schedule()
            if not chunks:
                continue
            try:
                self._step(chunks)
            except Exception as error:  # noqa: BLE001 - a failed step must not hang its clients
                for sequence in [c.sequence for c in chunks if c.sequence in scheduler.running]:
                    self._finish(sequence, FinishReason.ERROR, error=str(error))
        for sequence in [*scheduler.running, *scheduler.waiting, *self._inbox]:
            sequence.sink(Output([], [], FinishReason.CANCELLED))

    def _collect(self) -> bool:
        """Take what has come in since the last step, wait if there is nothing; False at the end."""
        scheduler = self._scheduler
        with self._wake:
            while not (self._closed or self._inbox or scheduler.running or scheduler.waiting):
                self._wake.wait()
            while self._inbox:
                scheduler.add(self._inbox.popleft())
        for sequence in [*scheduler.running, *scheduler.waiting]:
            if sequence.cancelled:
                self._finish(sequence, FinishReason.CANCELLED)
        return not self._closed

    def _step(self, chunks: list[Chunk]) -> None:
        logits = self._runner.run(chunks)
        for chunk in chunks:
            self.computed_tokens += chunk.end - chunk.sequence.computed
            chunk.sequence.computed = chunk.end
            self._scheduler.blocks.publish(chunk.sequence)
        complete = [c.sequence for c in chunks if c.sequence.decoded]
        for sequence, choice in zip(complete, sample(logits, complete), strict=True):
            self._emit(sequence, choice)

    def _emit(self, sequence: Sequence, choice: Choice) -> None:
        finish = sequence.append(choice.token)
        if finish is not None:
            self._scheduler.remove(sequence)
        log_probs = [choice.log_prob] if sequence.request.log_probs else []
        sequence.sink(Output([choice.token], log_probs, finish))

    def _finish(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> None:
        self._scheduler.remove(sequence)
        sequence.sink(Output([], [], reason, error))
