"""The same numbers under vLLM's names, for the dashboards, scalers and routers that ask for those.

Names and meanings: vllm/v1/metrics/loggers.py and docs.vllm.ai/en/stable/usage/metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from server.telemetry import instruments as ours
from server.telemetry.instruments import Instrument
from server.telemetry.tally import Tally

_ENGINE = "0"
_LABELS = ("model_name", "engine")

_RENAMED: dict[str, Instrument] = {
    "vllm:time_to_first_token_seconds": ours.TTFT,
    "vllm:inter_token_latency_seconds": ours.ITL,
    "vllm:request_time_per_output_token_seconds": ours.TPOT,
    "vllm:e2e_request_latency_seconds": ours.E2E,
    "vllm:request_queue_time_seconds": ours.QUEUE,
    "vllm:request_inference_time_seconds": ours.ENGINE_TIME,
    "vllm:request_prefill_time_seconds": ours.ENGINE_PREFILL,
    "vllm:request_decode_time_seconds": ours.ENGINE_DECODE,
    "vllm:request_prompt_tokens": ours.REQUEST_PROMPT,
    "vllm:request_generation_tokens": ours.REQUEST_GENERATED,
    "vllm:prompt_tokens": ours.PROMPT_TOKENS,
    "vllm:generation_tokens": ours.GENERATED_TOKENS,
    "vllm:prefix_cache_queries": ours.LOOKED_UP_TOKENS,
    "vllm:prefix_cache_hits": ours.CACHED_TOKENS,
}
"""vLLM's name → ours of the same meaning."""

_RUNNING = Instrument(
    name="vllm:num_requests_running",
    kind="gauge",
    help="Requests in the engine's batch",
    labels=_LABELS,
)
_WAITING = Instrument(
    name="vllm:num_requests_waiting",
    kind="gauge",
    help="Requests in a queue, the engine's or the proxy's",
    labels=_LABELS,
)
_KV_USE = Instrument(
    name="vllm:kv_cache_usage_perc",
    kind="gauge",
    help="Share of the KV cache in use, 0 to 1",
    labels=_LABELS,
)
_SUCCESS = Instrument(
    name="vllm:request_success",
    kind="counter",
    help="Answers by why they ended",
    labels=(*_LABELS, "finished_reason"),
)
_REASONS = {"tool_calls": "stop"}
"""Our reason → vLLM's, where they differ."""

INSTRUMENTS = (
    _RUNNING,
    _WAITING,
    _KV_USE,
    _SUCCESS,
    *(replace(same, name=name, labels=_LABELS) for name, same in _RENAMED.items()),
)


def translated(tally: Tally, models: Mapping[str, tuple[str, ...]]) -> Tally:
    """`tally` in INSTRUMENTS' names. Each of `models`, of which clients know several names, has
    gauges under its own."""
    made = Tally()
    for name, same in _RENAMED.items():
        numbers = tally.numbers.get(same.name, {})
        made.numbers[name] = {(*labels, _ENGINE): number for labels, number in numbers.items()}
        shapes = tally.distributions.get(same.name, {})
        made.distributions[name] = {(*labels, _ENGINE): shape for labels, shape in shapes.items()}
    for (model, reason), count in tally.numbers.get(ours.FINISHED.name, {}).items():
        made.add(_SUCCESS, model, _ENGINE, _REASONS.get(reason, reason), amount=count)
    for instrument, model, value in _gauges(tally, models):
        made.set(instrument, model, _ENGINE, value=value)
    return made


def _gauges(
    tally: Tally, models: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[Instrument, str, float]]:
    """The engine's own figures where Triton tells them, else what the proxy knows.

    Who waits in the proxy's line has not been asked yet for which model: the first has them.
    """
    line = sum(tally.numbers.get(ours.WAITING.name, {}).values())
    for model, names in models.items():
        in_flight = sum(_read(tally, ours.IN_FLIGHT, name) or 0 for name in names)
        running = _read(tally, ours.ENGINE_RUNNING, model)
        yield _RUNNING, model, in_flight if running is None else running
        yield _WAITING, model, line + (_read(tally, ours.ENGINE_WAITING, model) or 0)
        line = 0
        if blocks := _read(tally, ours.KV_BLOCKS_MAX, model):
            yield _KV_USE, model, (_read(tally, ours.KV_BLOCKS_USED, model) or 0) / blocks


def _read(tally: Tally, gauge: Instrument, model: str) -> float | None:
    return tally.numbers.get(gauge.name, {}).get((model,))
