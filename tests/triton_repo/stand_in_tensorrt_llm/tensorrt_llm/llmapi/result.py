import asyncio
import weakref
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

Logprob = namedtuple("Logprob", "logprob rank")


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list = field(default_factory=list)
    cumulative_logprob: Any = None
    logprobs: list = field(default_factory=list)
    finish_reason: Any = None
    stop_reason: Any = None
    generation_logits: Any = None
    request_perf_metrics: Any = None


class Logits:
    """As much of a torch tensor as is used."""

    def __init__(self, array):
        self._array = array

    def float(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self._array


def perf_metrics(tokens):
    return SimpleNamespace(
        kv_cache_metrics=SimpleNamespace(
            num_reused_blocks=1,
            num_missed_blocks=2,
            num_new_allocated_blocks=3,
            num_total_allocated_blocks=4,
            kv_cache_hit_rate=0.25,
        ),
        timing_metrics=SimpleNamespace(
            arrival_time=timedelta(microseconds=10),
            first_scheduled_time=timedelta(microseconds=20),
            first_token_time=timedelta(microseconds=30),
            last_token_time=timedelta(microseconds=30 + tokens),
        ),
        speculative_decoding=SimpleNamespace(
            acceptance_rate=0.5, total_accepted_draft_tokens=5, total_draft_tokens=10
        ),
    )


class RequestOutput:
    """An async iterator that is its own item, as upstream's."""

    def __init__(self, executor, prompt_token_ids, outputs, streaming):
        self.prompt_token_ids = prompt_token_ids
        self.context_logits = None
        self._outputs, self._streaming = outputs, streaming
        self._executor = weakref.ref(executor)
        self._done = False
        self._loop = asyncio.get_running_loop()
        self.responses = asyncio.Queue()

    @property
    def outputs(self):
        return self._outputs

    @property
    def finished(self):
        return self._done

    def abort(self):
        self._executor().abort(self)

    def give(self, response):
        """From the executor's thread."""
        self._loop.call_soon_threadsafe(self.responses.put_nowait, response)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._done:
            raise StopAsyncIteration
        response = await self.responses.get()
        if isinstance(response, Exception):
            self._done = True
            raise response
        apply, self._done = response
        apply(self)
        return self
