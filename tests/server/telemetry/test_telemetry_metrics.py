"""Promise: what /metrics shows is what happened, by model, endpoint and outcome."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

import pytest
from exposed import Series, config, kinds, series, value
from hypothesis import given
from hypothesis import strategies as st

from server.backend.base import Perf
from server.errors import OverloadedError
from server.telemetry import Exchange, Metrics, RequestMeter
from server.telemetry.instruments import INSTRUMENTS, ITL
from server.telemetry.tally import Distribution, Tally

MS = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The meter's clock: [now], in seconds."""
    now = [100.0]
    monkeypatch.setattr("server.telemetry.meter._clock", lambda: now[0])
    return now


def meter(metrics: Metrics, model: str = "m", **values: object) -> RequestMeter:
    exchange = Exchange(arrived=100.0, **values)  # type: ignore[arg-type]
    return RequestMeter(metrics, model=model, endpoint="chat_completions", exchange=exchange)


async def shown(metrics: Metrics) -> Series:
    return series(await metrics.text())


def buckets(found: Series, name: str) -> list[float]:
    """A histogram's own counts, bucket by bucket."""
    bounds = {
        float(dict(labels)["le"]): count
        for (series_name, labels), count in found.items()
        if series_name == f"{name}_bucket"
    }
    counts = [bounds[bound] for bound in sorted(bounds)]
    return [high - low for low, high in zip([0.0, *counts], counts, strict=False)]


async def test_a_request_s_latencies_and_tokens_are_told(clock: list[float]) -> None:
    metrics = Metrics(config())
    with meter(metrics) as one:
        one.exchange.queued_seconds = 0.25
        one.prompt(40)
        for clock[0] in (100.5, 100.52, 100.60):
            one.tokens(2)
        one.tokens(0)
        one.perf(
            Perf(
                arrival_ns=1,
                first_scheduled_ns=1 + 30 * MS,
                first_token_ns=1 + 90 * MS,
                last_token_ns=1 + 190 * MS,
                cached_tokens=32,
            )
        )
        one.finish("stop")
    found = await shown(metrics)
    m = {"model": "m"}
    ok = {"endpoint": "chat_completions", "outcome": "ok"}
    assert value(found, "trtbuild_requests_total", **m, **ok) == 1
    assert value(found, "trtbuild_prompt_tokens_total", **m) == 40
    assert value(found, "trtbuild_cached_tokens_total", **m) == 32
    assert value(found, "trtbuild_cache_queried_tokens_total", **m) == 40
    assert value(found, "trtbuild_generated_tokens_total", **m) == 6
    assert value(found, "trtbuild_choices_finished_total", **m, reason="stop") == 1
    sums = {
        "time_to_first_token": 0.5,
        "inter_token_latency": 0.1,
        "queue": 0.28,
        "engine_queue": 0.03,
        "engine_prefill": 0.06,
        "engine_decode": 0.1,
        "engine": 0.16,
        "time_per_output_token": 0.1 / 5,
    }
    for name, expected in sums.items():
        told = value(found, f"trtbuild_{name}_seconds_sum", **m)
        assert told == pytest.approx(expected), name
    assert value(found, "trtbuild_inter_token_latency_seconds_count", **m) == 2
    assert value(found, "trtbuild_request_prompt_tokens_sum", **m) == 40
    assert value(found, "trtbuild_request_generated_tokens_sum", **m) == 6
    assert value(found, "trtbuild_request_seconds_count", **m) == 1
    assert value(found, "trtbuild_requests_in_flight", **m) == 0


async def test_a_choice_s_tokens_are_timed_by_its_own_last_ones(clock: list[float]) -> None:
    metrics = Metrics(config())
    with meter(metrics) as one:
        for clock[0] in (101.0, 103.0, 105.0):
            one.tokens(1, 0)
            one.tokens(1, 1)
    found = await shown(metrics)
    itl = buckets(found, ITL.name)
    place = bisect_left(ITL.bounds, 2.0)
    assert itl[place] == sum(itl) == 4, "two seconds, four times"
    assert value(found, f"{ITL.name}_sum", model="m") == 8
    assert value(found, "trtbuild_time_to_first_token_seconds_count", model="m") == 1


async def test_a_stream_shows_while_it_runs(clock: list[float]) -> None:
    metrics = Metrics(config())
    with meter(metrics) as one:
        one.tokens(1)
        clock[0] += 3
        one.tokens(4)
        found = await shown(metrics)
        again = await shown(metrics)
    assert found == again
    assert value(found, "trtbuild_generated_tokens_total", model="m") == 5
    assert value(found, "trtbuild_inter_token_latency_seconds_sum", model="m") == 3
    assert value(found, "trtbuild_requests_in_flight", model="m") == 1
    after = await shown(metrics)
    assert value(after, "trtbuild_generated_tokens_total", model="m") == 5
    assert value(after, "trtbuild_inter_token_latency_seconds_sum", model="m") == 3


async def test_what_failed_and_who_left_are_told_apart_and_spoil_no_latency() -> None:
    metrics = Metrics(config())
    with meter(metrics) as failed:
        failed.failed(OverloadedError("full"), 429)
    with meter(metrics) as left:
        left.outcome = "cancelled"
    with pytest.raises(KeyError), meter(metrics):
        raise KeyError
    found = await shown(metrics)
    labels = {"model": "m", "endpoint": "chat_completions"}
    assert value(found, "trtbuild_requests_total", **labels, outcome="429") == 1
    assert value(found, "trtbuild_requests_total", **labels, outcome="cancelled") == 2
    assert value(found, "trtbuild_errors_total", **labels, error="OverloadedError") == 1
    assert value(found, "trtbuild_choices_finished_total", model="m", reason="error") == 1
    assert value(found, "trtbuild_choices_finished_total", model="m", reason="abort") == 2
    assert value(found, "trtbuild_request_seconds_count", model="m") is None


async def test_names_that_clients_make_up_make_no_series() -> None:
    metrics = Metrics(config("m", "n"))
    for name in ("m", "x", "y"):
        metrics.refused("completions", "404")
        with meter(metrics, name):
            pass
    models = {dict(labels).get("model", "") for _, labels in await shown(metrics)}
    assert models == {"m", "n", ""}


async def test_who_waits_is_asked_when_the_metrics_are() -> None:
    metrics = Metrics(config())
    line = [3]
    metrics.watch_waiting(lambda: line[0])
    assert value(await shown(metrics), "trtbuild_requests_waiting") == 3
    line[0] = 1
    assert value(await shown(metrics), "trtbuild_requests_waiting") == 1


@given(st.lists(st.floats(0, 100)))
def test_a_distribution_counts_as_prometheus_does(values: list[float]) -> None:
    distribution = Distribution(ITL.bounds)
    for each in values:
        distribution.observe(each)
    at_most = [sum(v <= bound for v in values) for bound in (*ITL.bounds, float("inf"))]
    assert list(accumulate(distribution.counts)) == at_most
    assert distribution.sum == pytest.approx(sum(values))


def test_numbers_survive_their_file() -> None:
    tally = Tally()
    for instrument in INSTRUMENTS:
        labels = [f"{label} é" for label in instrument.labels]
        if instrument.kind == "histogram":
            tally.distribution(instrument, *labels).observe(0.3)
        else:
            tally.add(instrument, *labels, amount=2)
    assert Tally.from_json(tally.to_json()).to_json() == tally.to_json()


VLLM = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:request_time_per_output_token_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_inference_time_seconds": "histogram",
    "vllm:request_prefill_time_seconds": "histogram",
    "vllm:request_decode_time_seconds": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:prefix_cache_queries": "counter",
    "vllm:prefix_cache_hits": "counter",
}
"""From vllm/v1/metrics/loggers.py and docs.vllm.ai; its KV use needs Triton's metrics."""


async def test_vllm_s_names_are_there_when_asked_for_with_its_labels_and_meanings() -> None:
    metrics = Metrics(config("m", "n", metrics_compat="vllm"))
    metrics.watch_waiting(lambda: 2)
    with meter(metrics, queued_seconds=0.1) as one:
        one.prompt(10)
        one.tokens(1)
        one.tokens(1)
        one.finish("tool_calls")
        one.perf(Perf(arrival_ns=1, first_scheduled_ns=2, first_token_ns=3, last_token_ns=4))
    with meter(metrics):
        text = await metrics.text()
    assert {n: k for n, k in kinds(text).items() if n.startswith("vllm:")} == VLLM
    found = series(text)
    m = {"model_name": "m", "engine": "0"}
    assert value(found, "vllm:num_requests_running", **m) == 1
    assert value(found, "vllm:num_requests_waiting", **m) == 2
    assert value(found, "vllm:num_requests_waiting", model_name="n", engine="0") == 0
    assert value(found, "vllm:request_success_total", **m, finished_reason="stop") == 1
    for pair in (
        ("vllm:generation_tokens_total", "trtbuild_generated_tokens_total"),
        ("vllm:e2e_request_latency_seconds_sum", "trtbuild_request_seconds_sum"),
        ("vllm:request_queue_time_seconds_sum", "trtbuild_queue_seconds_sum"),
    ):
        assert value(found, pair[0], **m) == value(found, pair[1], model="m")


async def test_without_asking_there_are_no_names_but_ours() -> None:
    metrics = Metrics(config())
    with meter(metrics) as one:
        one.tokens(1)
    assert all(name.startswith("trtbuild_") for name in kinds(await metrics.text()))
