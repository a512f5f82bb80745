"""Promise: the served application measures, logs and traces what its clients see of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from exposed import Series, series, value
from live_proxy import MODEL, LiveProxy, config, live_proxy
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from small_tokenizers import byte_level, write_folder

from server.backend.base import Perf
from server.backend.memory import MemoryBackend, Script
from server.errors import OverloadedError
from server.telemetry.tracing.otel import OpenTelemetryTracer

TOKENIZER = byte_level()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "a secret"}]}
MS = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tokenizer"), TOKENIZER)


def script(text: str = "one two three", **values: Any) -> Script:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    return Script(messages=[[token] for token in ids], **values)


async def shown(proxy: LiveProxy) -> Series:
    return series((await proxy.http.get("/metrics")).content)


async def until(proxy: LiveProxy, done: Callable[[Series], Any]) -> Series:
    """The metrics, once they are as they should become."""

    async def asked() -> Series:
        while not done(found := await shown(proxy)):
            await asyncio.sleep(0.01)
        return found

    return await asyncio.wait_for(asked(), 30)


async def test_a_stream_is_measured_logged_and_part_of_its_caller_s_trace(
    folder: Path, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    perf = Perf(
        arrival_ns=1,
        first_scheduled_ns=1 + 40 * MS,
        first_token_ns=1 + 50 * MS,
        last_token_ns=1 + 90 * MS,
        cached_tokens=8,
    )
    backend = MemoryBackend(script(perf=perf))
    async with live_proxy(config(folder, access_log=log), backend) as proxy:
        headers = {"traceparent": PARENT, "x-request-id": "mine"}
        body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
        answer = await proxy.http.post("/v1/chat/completions", json=body, headers=headers)
        found = await until(
            proxy, lambda f: value(f, "trtbuild_request_seconds_count", model=MODEL)
        )
    usage = json.loads(answer.text.split("data: ")[-2])["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 8
    assert backend.requests[0].trace == {"traceparent": PARENT}
    [line] = map(json.loads, log.read_text().splitlines())
    tokens = {
        "prompt": usage["prompt_tokens"],
        "generated": usage["completion_tokens"],
        "cached": 8,
    }
    for name, count in tokens.items():
        assert value(found, f"trtbuild_{name}_tokens_total", model=MODEL) == count
    assert value(found, "trtbuild_engine_queue_seconds_sum", model=MODEL) == pytest.approx(0.04)
    told = {key: line[key] for key in ("request_id", "route", "status", "outcome", "stream")}
    assert told == {
        "request_id": "mine",
        "route": "/v1/chat/completions",
        "status": 200,
        "outcome": "ok",
        "stream": True,
    }
    assert line["completion_tokens"] == usage["completion_tokens"]
    assert line["queue_ms"] >= 40
    assert line["trace_id"] == PARENT[3:35]
    assert "secret" not in json.dumps(line)


async def test_who_waits_is_refused_or_leaves_is_counted_as_that(folder: Path) -> None:
    backend = MemoryBackend(script(hang=True))
    settings = config(folder, max_in_flight=1, max_waiting=1)
    async with live_proxy(settings, backend) as proxy:

        def ask() -> asyncio.Task[Any]:
            answering: Awaitable[Any] = proxy.http.post("/v1/chat/completions", json=BODY)
            return asyncio.ensure_future(answering)

        first = ask()
        await until(proxy, lambda f: value(f, "trtbuild_requests_in_flight", model=MODEL) == 1)
        second = ask()
        await until(proxy, lambda f: value(f, "trtbuild_requests_waiting") == 1)
        assert (await ask()).status_code == 429
        cancelled = {"endpoint": "chat_completions", "outcome": "cancelled"}
        for task, model in ((second, ""), (first, MODEL)):
            task.cancel()
            labels = {"model": model, **cancelled}
            found = await until(
                proxy, lambda f, labels=labels: value(f, "trtbuild_requests_total", **labels)
            )
    assert value(found, "trtbuild_requests_waiting") == 0
    assert value(found, "trtbuild_choices_finished_total", model=MODEL, reason="abort") == 1
    labels = {"model": "", "endpoint": "chat_completions"}
    assert value(found, "trtbuild_requests_total", **labels, outcome="429") == 1
    assert value(found, "trtbuild_errors_total", **labels, error="OverloadedError") == 1


async def test_a_stream_that_breaks_off_is_an_error_in_the_log_and_the_trace(
    folder: Path, tmp_path: Path
) -> None:
    log, spans = tmp_path / "access.log", InMemorySpanExporter()
    backend = MemoryBackend(script(failure=OverloadedError("the engine is full")))
    async with live_proxy(config(folder, access_log=log), backend) as proxy:
        proxy.app.serving.telemetry.tracer = OpenTelemetryTracer(SimpleSpanProcessor(spans))
        await proxy.http.post("/v1/chat/completions", json={**BODY, "stream": True})
    [line] = map(json.loads, log.read_text().splitlines())
    assert (line["status"], line["outcome"]) == (200, "429")
    assert line["error"] == "OverloadedError"
    client, server = spans.get_finished_spans()
    assert (client.attributes or {})["error.type"] == "OverloadedError"
    assert client.parent == server.context
    trace = client.context
    assert trace
    told = backend.requests[0].trace["traceparent"]
    assert told.startswith(f"00-{trace.trace_id:032x}-{trace.span_id:016x}")
