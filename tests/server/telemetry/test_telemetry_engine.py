"""Promise: the engine's figures are Triton's own, fresh, and asked for only when somebody asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from exposed import config, kinds, series, value

from server.telemetry import Metrics, engine

SHOWN = """\
# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="triton_m",version="1"}} 5
# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{{model="triton_m",request_type="waiting",version="1"}} {waiting}
nv_trt_llm_request_metrics{{model="triton_m",request_type="scheduled",version="1"}} 3
# HELP nv_trt_llm_kv_cache_block_metrics TRT LLM KV cache block metrics
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="max",model="triton_m",version="1"}} 100
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="used",model="triton_m",version="1"}} 25
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="used",model="other",version="1"}} 7
"""


@contextmanager
def triton(text: str) -> Iterator[tuple[str, list[str]]]:
    """An endpoint that shows `text`: its URL, and who has asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics", asked
        finally:
            server.shutdown()
            serving.join()


async def test_kv_use_and_queue_are_the_engine_s_by_the_clients_name_of_the_model() -> None:
    with triton(SHOWN.format(waiting=4)) as (url, _):
        metrics = Metrics(config(triton_metrics_urls=(url,), metrics_compat="vllm"))
        metrics.watch_waiting(lambda: 2)
        found = series(await metrics.text())
    assert value(found, "trtbuild_triton_metrics_up", url=url) == 1
    assert value(found, "trtbuild_kv_cache_blocks_used", model="m") == 25
    assert value(found, "trtbuild_kv_cache_blocks_max", model="m") == 100
    vllm = {"model_name": "m", "engine": "0"}
    assert value(found, "vllm:kv_cache_usage_perc", **vllm) == 0.25
    assert value(found, "vllm:num_requests_running", **vllm) == 3
    assert value(found, "vllm:num_requests_waiting", **vllm) == 6, "the engine's and the proxy's"
    assert not any(name.startswith("nv_") for name, _ in found)


async def test_several_tritons_are_summed_and_one_that_is_away_is_told_of() -> None:
    away = "http://127.0.0.1:9/metrics"  # as it is shown: the route is open
    with triton(SHOWN.format(waiting=4)) as (one, _), triton(SHOWN.format(waiting=1)) as (two, _):
        urls = (one, away, two)
        given = (one, away.replace("//", "//me:secret@"), two)
        metrics = Metrics(config(triton_metrics_urls=given, metrics_with_triton=True))
        text = await metrics.text()
    found = series(text)
    up = [value(found, "trtbuild_triton_metrics_up", url=url) for url in urls]
    assert up == [1, 0, 1]
    assert value(found, "trtbuild_engine_requests_waiting", model="m") == 5
    assert value(found, "trtbuild_kv_cache_blocks_max", model="m") == 200
    for url in (one, two):
        line = f'nv_inference_request_success{{triton="{url}",model="triton_m",version="1"}} 5\n'
        assert line in text.decode()
    heads = [line for line in text.decode().splitlines() if line.startswith("#")]
    assert len(set(heads)) == len(heads), "each family once"


async def test_triton_s_own_text_is_shown_as_it_is_when_asked_for() -> None:
    shown = SHOWN.format(waiting=0)
    with triton(shown) as (url, _):
        metrics = Metrics(config(triton_metrics_urls=(url,), metrics_with_triton=True))
        text = await metrics.text()
    assert text.decode().endswith(shown)
    assert kinds(text)["nv_inference_request_success"] == "counter"


async def test_it_is_asked_only_when_we_are_and_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [10.0]
    monkeypatch.setattr("server.telemetry.engine._clock", lambda: now[0])
    with triton(SHOWN.format(waiting=4)) as (url, asked):
        metrics = Metrics(config(triton_metrics_urls=(url,)))
        await metrics.start()
        metrics.refused("completions", "429")
        assert not asked
        for _ in range(3):
            await metrics.text()
        assert len(asked) == 1
        now[0] += 1.1
        await metrics.text()
        assert len(asked) == 2
        await metrics.close()


async def test_what_is_no_metrics_text_is_as_good_as_none() -> None:
    spoiled = 'nv_trt_llm_request_metrics{model="m' + "\x00 }{ five"
    with triton(spoiled) as (url, _):
        metrics = Metrics(config(triton_metrics_urls=(url,), metrics_with_triton=True))
        text = await metrics.text()
    assert value(series(text), "trtbuild_triton_metrics_up", url=url) == 0
    assert b"nv_" not in text


async def test_an_endpoint_that_drips_or_floods_is_told_as_down_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(engine, "_MAX_BYTES", 1 << 20)
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            drips = self.path == "/drips"
            with suppress(OSError):
                while not done.wait(0.01 if drips else 0):
                    self.wfile.write(b"#\n" if drips else b"#\n" * 10_000)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        root = f"http://127.0.0.1:{server.server_port}"
        urls = (f"{root}/drips", f"{root}/floods")
        try:
            metrics = Metrics(config(triton_metrics_urls=urls))
            found = series(await asyncio.wait_for(metrics.text(), 20))
        finally:
            done.set()
            server.shutdown()
            serving.join()
    assert [value(found, "trtbuild_triton_metrics_up", url=url) for url in urls] == [0, 0]
    assert value(found, "trtbuild_workers") == 1
