"""Promise: each request is a line of JSON without what was said in it, and logging fails nobody."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exposed import config

from server.backend.base import Perf
from server.errors import AuthenticationError, OutputError
from server.protocol.request import ChatPrompt, TextRequest
from server.telemetry import RequestMeter, Telemetry, exchange_of
from server.telemetry.access_log import AccessLog
from server.telemetry.line_file import STDERR, LineFile

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "the prompt's own words"


def scope(**headers: str) -> dict[str, Any]:
    raw = [(name.encode(), content.encode()) for name, content in headers.items()]
    return {"type": "http", "method": "POST", "headers": raw, "client": ("10.0.0.7", 4711)}


def asking(text: str, *, stream: bool = True) -> TextRequest:
    prompt = ChatPrompt(messages=[{"role": "user", "content": text}])
    return TextRequest(model="m", prompts=[prompt], prompt_param="messages", stream=stream)


def answered(telemetry: Telemetry, scope: dict[str, Any]) -> None:
    """One request, all that happens to it."""
    exchange = telemetry.arrived(
        scope, path="/v1/chat/completions", endpoint="chat_completions", request_id="r-1"
    )
    exchange.key, exchange.status, exchange.queued_seconds = "alice", 200, 0.002
    found = exchange_of(scope)
    with RequestMeter(
        telemetry.metrics, model="m", endpoint="chat_completions", exchange=found
    ) as meter:
        meter.asked(asking(SECRET))
        meter.prompt(7)
        meter.perf(Perf(cached_tokens=4))
        meter.tokens(1)
        meter.tokens(1)
        if meter.keeps_content:
            meter.said(0, "Hi")
            meter.said(0, " there")
        meter.finish("stop")
    telemetry.over(exchange)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def eventually(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_a_line_says_who_asked_what_model_and_how_it_went(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    telemetry = Telemetry(config(access_log=path))
    answered(telemetry, scope(traceparent=PARENT, authorization="Bearer sk-secret"))
    await telemetry.close()
    [line] = lines(path)
    assert line["time"].endswith("Z")
    assert line.pop("time")[:2] == "20"
    assert line.pop("ttft_ms") > 0
    assert line.pop("duration_ms") > 0
    assert line == {
        "request_id": "r-1",
        "key": "alice",
        "client": "10.0.0.7",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "outcome": "ok",
        "model": "m",
        "stream": True,
        "prompt_tokens": 7,
        "cached_tokens": 4,
        "completion_tokens": 2,
        "queue_ms": 2.0,
        "finish_reason": "stop",
        "trace_id": PARENT[3:35],
    }
    text = path.read_text()
    assert SECRET not in text
    assert "sk-secret" not in text


async def test_prompts_and_answers_are_there_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    telemetry = Telemetry(config(access_log=path, log_prompts=True))
    answered(telemetry, scope())
    await telemetry.close()
    [line] = lines(path)
    [asked], [said] = line["prompt"], line["answer"]
    assert asked == {"role": "user", "parts": [{"type": "text", "content": SECRET}]}
    assert said == {"role": "assistant", "parts": [{"type": "text", "content": "Hi there"}]}


async def test_what_was_refused_is_logged_and_a_healthy_probe_is_not(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    telemetry = Telemetry(config(access_log=path))
    for endpoint, error in (("chat_completions", True), ("", False), ("", True)):
        exchange = telemetry.arrived(scope(), path="/p", endpoint=endpoint, request_id="r")
        if error:
            exchange.failed(AuthenticationError("no key"), 401)
        telemetry.over(exchange)
    await telemetry.close()
    found = lines(path)
    assert [line["outcome"] for line in found] == ["401", "401"]
    assert found[0]["error"] == "AuthenticationError"
    text = (await telemetry.metrics.text()).decode()
    refused = 'trtbuild_requests_total{endpoint="chat_completions",model="",outcome="401"} 1.0'
    assert refused in text
    assert text.count("trtbuild_requests_total{") == 1, "probes count for nothing"


def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(path)
    log.log({"n": 1})
    eventually(lambda: path.stat().st_size > 0)
    path.rename(rotated)
    log.log({"n": 2})
    log.close()
    assert lines(rotated) == [{"n": 1}]
    assert lines(path) == [{"n": 2}]


@pytest.mark.filterwarnings("error")
def test_a_full_disk_and_a_broken_pipe_fail_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = AccessLog(Path("/dev/full"))
    full.log({"n": 1})
    full.close()
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr("server.telemetry.line_file._STDERR_FD", writing)
    broken = AccessLog(STDERR)
    broken.log({"n": 1})
    broken.close()
    os.close(writing)
    assert len(caplog.messages) == 2
    assert "No space left" in caplog.messages[0]
    assert "Broken pipe" in caplog.messages[1]


def test_half_a_surrogate_pair_in_a_prompt_is_logged(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "log")
    log.log({"prompt": "\ud83d", "more": {1, 2}})
    log.close()
    assert lines(tmp_path / "log")[0]["prompt"] == "\ud83d"


def test_a_reader_that_stalls_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.telemetry.line_file._MAX_WAITING_LINES", 100)
    monkeypatch.setattr("server.telemetry.line_file._CLOSE_SECONDS", 0.1)
    reading, writing = os.pipe()
    monkeypatch.setattr("server.telemetry.line_file._STDERR_FD", writing)
    log = AccessLog(STDERR)
    for _ in range(1000):
        log.log({"line": "x" * 1000})
    log.close()
    assert "as fast as they come" in caplog.text
    assert os.read(reading, 1) == b"{"
    os.close(reading)
    eventually(lambda: "access log" not in {thread.name for thread in threading.enumerate()})
    os.close(writing)


async def test_a_log_that_can_t_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="access log"):
        Telemetry(config(access_log=tmp_path / "missing" / "access.log"))


def test_a_line_that_cannot_be_made_takes_no_other_with_it(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", what="test")
    file.write(lambda: (1 << 64).to_bytes(1, "little"), 1)
    file.write(lambda: b"whole\n", 1)
    file.close()
    assert (tmp_path / "lines").read_bytes() == b"whole\n"
    assert file.lost == 1


def test_a_log_that_was_moved_is_not_made_anew_for_nothing(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "old")
    log.close()
    assert not (tmp_path / "log").exists()
