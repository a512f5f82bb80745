"""Prometheus metrics of the proxy, in a registry of its own."""

from __future__ import annotations

import time
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# TTFT's bounds are those of vLLM and trtllm-serve; ITL's have finer steps for fast engines.
_TTFT_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
_ITL_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
_E2E_SECONDS = (
    0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480,
    960, 1920, 7680,
)  # fmt: skip

OK = "ok"
CANCELLED = "cancelled"


class Metrics:
    """The proxy's instruments. `outcome` is "ok", "cancelled" (the client left), or the status."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "trtbuild_requests",
            "Requests by model, endpoint and outcome",
            ("model", "endpoint", "outcome"),
            registry=registry,
        )
        model = ("model",)
        self.prompt_tokens = Counter(
            "trtbuild_prompt_tokens", "Prompt tokens read", model, registry=registry
        )
        self.generated_tokens = Counter(
            "trtbuild_generated_tokens", "Tokens generated", model, registry=registry
        )
        self.in_flight = Gauge(
            "trtbuild_requests_in_flight", "Requests being answered", model, registry=registry
        )
        self.ttft = Histogram(
            "trtbuild_time_to_first_token_seconds",
            "From the request's arrival to its first token",
            model,
            buckets=_TTFT_SECONDS,
            registry=registry,
        )
        self.itl = Histogram(
            "trtbuild_inter_token_latency_seconds",
            "Between messages with tokens of one request",
            model,
            buckets=_ITL_SECONDS,
            registry=registry,
        )
        self.e2e = Histogram(
            "trtbuild_request_seconds",
            "From the request's arrival to its last byte",
            model,
            buckets=_E2E_SECONDS,
            registry=registry,
        )

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)


class RequestMeter:
    """Measures one request, from entering this context to leaving it. Set `outcome` on the way."""

    def __init__(self, metrics: Metrics, *, model: str, endpoint: str) -> None:
        self._metrics, self._model, self._endpoint = metrics, model, endpoint
        self._start = self._last = time.perf_counter()
        self._ttft = metrics.ttft.labels(model)
        self._itl = metrics.itl.labels(model)
        self._generated = 0
        self.outcome = OK

    def __enter__(self) -> RequestMeter:
        self._metrics.in_flight.labels(self._model).inc()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        metrics, model = self._metrics, self._model
        metrics.in_flight.labels(model).dec()
        metrics.generated_tokens.labels(model).inc(self._generated)
        metrics.requests.labels(model, self._endpoint, self.outcome).inc()
        if self.outcome == OK:
            metrics.e2e.labels(model).observe(time.perf_counter() - self._start)

    def prompt(self, count: int) -> None:
        """The prompts' tokens, all choices together."""
        self._metrics.prompt_tokens.labels(self._model).inc(count)

    def tokens(self, count: int) -> None:
        """A message with `count` new tokens arrived."""
        if count == 0:
            return
        now = time.perf_counter()
        if self._generated:
            self._itl.observe(now - self._last)
        else:
            self._ttft.observe(now - self._start)
        self._last = now
        self._generated += count
