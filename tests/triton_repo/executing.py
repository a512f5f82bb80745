"""Runs requests on an executor and gathers what they are given, sequence by sequence."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from triton_repo.executor.executor import Executor, ExecutorConfig, Handle
from triton_repo.executor.request import Beam, FinishReason, Output, Perf, Request

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(3, 384, size=size).tolist() for size in (5, 31, 32, 33, 64, 90, 1, 17)]
ANSWER = 24


class Answer:
    """What one request is given; fails where the order of its outputs breaks their promises."""

    def __init__(self) -> None:
        self.of: defaultdict[int, list[int]] = defaultdict(list)
        self.scores: defaultdict[int, list[float]] = defaultdict(list)
        self.finishes: dict[int, FinishReason] = {}
        self.rows: defaultdict[int, list[Any]] = defaultdict(list)
        self.context: Any = None
        self.error: str | None = None
        self.beams: tuple[Beam, ...] = ()
        self.perf: Perf | None = None
        self.handle: Handle | None = None
        self.started, self.done = threading.Event(), threading.Event()

    def __call__(self, output: Output) -> None:
        index = output.sequence_index
        assert not self.done.is_set(), "an output after the last"
        assert index not in self.finishes, "an output after its sequence's last"
        self.of[index] += output.token_ids
        self.scores[index] += output.log_probs
        if output.generation_logits is not None:
            assert len(output.generation_logits) == len(output.token_ids)
            self.rows[index].extend(output.generation_logits)
        if output.context_logits is not None:
            assert self.context is None, "context logits come once"
            self.context = output.context_logits
        if output.finish is not None:
            self.finishes[index] = output.finish
            assert output.perf is not None
            self.perf = output.perf
        self.error = self.error or output.error
        self.beams = output.beams or ()
        self.started.set()
        if output.final:
            assert output.finish is not None
            self.done.set()

    @property
    def tokens(self) -> list[int]:
        """Those of the first sequence."""
        return self.of[0]

    @property
    def log_probs(self) -> list[float]:
        """Those of the first sequence."""
        return self.scores[0]

    @property
    def finish(self) -> FinishReason | None:
        """Why the first sequence is over, once it is."""
        return self.finishes.get(0)

    def wait(self) -> Answer:
        """Until it is over."""
        assert self.done.wait(60)
        return self


@contextmanager
def executor(engine: Path, **settings: Any) -> Iterator[Executor]:
    """One of the engine, closed afterwards."""
    one = Executor(engine, ExecutorConfig.of(engine, **settings))
    try:
        yield one
    finally:
        one.close()


def ask(one: Executor, prompt: list[int], **fields: Any) -> Answer:
    """Submit a request of ANSWER tokens; `fields` are those of Request."""
    answer = Answer()
    request = Request(input_ids=prompt, **{"max_tokens": ANSWER, **fields})
    answer.handle = one.submit(request, answer)
    return answer


@contextmanager
def slowed(one: Executor) -> Iterator[None]:
    """Steps take 10 ms more for the length of the context: no answer in it is over too soon."""
    one.between = lambda: time.sleep(0.01)
    try:
        yield
    finally:
        one.between = lambda: None


def all_free(one: Executor) -> bool:
    """Whether nothing is left in the executor and its cache."""
    return one.active == 0 and one.free_blocks == one.config.kv_cache_tokens // 32
