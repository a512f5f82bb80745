"""Measures one request while it is answered."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from types import TracebackType

from server.backend.base import Perf
from server.protocol.request import TextRequest
from server.telemetry import genai
from server.telemetry import instruments as the
from server.telemetry.closing import count, tell
from server.telemetry.exchange import CANCELLED, OK, Exchange
from server.telemetry.measurement import Measurement
from server.telemetry.numbers import Numbers

_ENGINE_STAGES = (
    (the.ENGINE_QUEUE, "arrival_ns", "first_scheduled_ns"),
    (the.ENGINE_PREFILL, "first_scheduled_ns", "first_token_ns"),
    (the.ENGINE_DECODE, "first_token_ns", "last_token_ns"),
    (the.ENGINE_TIME, "first_scheduled_ns", "last_token_ns"),
)
"""A stage, and the fields of Perf that it lies between."""

_NS = 1e-9
_ITL_BOUNDS = the.ITL.bounds
_clock = time.perf_counter


class RequestMeter(Measurement):
    """Measures one request, from entering this context to leaving it. Set `outcome` on the way.

    `endpoint` is the dialect's name. `exchange` is the HTTP request's; without one the request
    arrives now. `tokens` is called for each message of the engine: it is plain arithmetic, and all
    else that is counted waits for the end.
    """

    def __init__(
        self, numbers: Numbers, *, model: str, endpoint: str, exchange: Exchange | None = None
    ) -> None:
        super().__init__(
            model=numbers.label(model), endpoint=endpoint, exchange=exchange or Exchange()
        )
        self.exchange.measured = True
        self._numbers, self._tally = numbers, numbers.tally
        self._itl_counts = self._tally.distribution(the.ITL, self.model).counts

    @property
    def keeps_content(self) -> bool:
        """Whether `said` wants the answer's text."""
        return self.exchange.keeps_content

    @property
    def keeps_prompts(self) -> bool:
        """Whether `prompts` is to be called."""
        return self.exchange.keeps_prompts

    def __enter__(self) -> RequestMeter:
        self._numbers.begun(self)
        self.exchange.trace.generating(genai.begin(self.endpoint, self.model))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self.outcome == OK:
            self.outcome = CANCELLED
        self._numbers.ended(self)
        count(self._tally, self)
        tell(self)

    def headers_for_triton(self) -> Mapping[str, str]:
        """W3C trace headers for the requests to Triton; after this context was entered."""
        return self.exchange.headers_for_triton()

    def asked(self, request: TextRequest) -> None:
        """What the client wants."""
        self.request = request

    def prompts(self, ids: Sequence[Sequence[int]]) -> None:
        """The prompts' token ids; call it only where `keeps_prompts`."""
        self.exchange.prompts = ids

    def prompt(self, count: int) -> None:
        """The prompts' tokens, all together."""
        self.prompt_tokens += count
        self._tally.add(the.PROMPT_TOKENS, self.model, amount=count)

    def tokens(self, count: int, choice: int = 0) -> None:
        """A message with `count` new tokens of a choice has arrived."""
        if not count:
            return
        now = _clock()
        last = self.last.get(choice)
        self.last[choice] = now
        self.generated_tokens += count
        if last is not None:
            self._itl_counts[bisect_left(_ITL_BOUNDS, now - last)] += 1
            return
        if not self.first:
            ttft = self._tally.distribution(the.TTFT, self.model)
            ttft.observe(now - self.exchange.arrived)
        self.first[choice] = now

    def perf(self, perf: Perf) -> None:
        """What the engine tells of a request that it has finished."""
        self.reused_tokens += perf.cached_tokens
        self.cache_told = True
        for instrument, begin_field, end_field in _ENGINE_STAGES:
            begin, end = getattr(perf, begin_field), getattr(perf, end_field)
            if 0 < begin <= end:
                seconds = (end - begin) * _NS
                self._tally.distribution(instrument, self.model).observe(seconds)
                if instrument is the.ENGINE_QUEUE:
                    self.engine_queue_seconds = max(self.engine_queue_seconds or 0.0, seconds)

    def finish(self, reason: str) -> None:
        """A choice has ended: "stop", "length" or "tool_calls"."""
        self.reasons.append(reason)
        self._tally.add(the.FINISHED, self.model, reason)

    def said(self, choice: int, text: str) -> None:
        """More text of an answer; call it only where `keeps_content`."""
        self.texts[choice] = self.texts.get(choice, "") + text

    def failed(self, error: BaseException, status: int) -> None:
        """The request ends with an error, which clients are told as `status`."""
        self.outcome = str(status)
        self.error = type(error).__name__
