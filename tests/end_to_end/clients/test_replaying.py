"""Promise: what the proxy records, aiperf takes for its trace, whose requests are the same."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from client_scripts import Client
from scripted_proxy import KEY, scripted_proxy

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

BODY: dict[str, Any] = {
    "model": "hermes",
    "messages": [{"role": "user", "content": "How is the weather in Paris today?"}],
}


def recorded(tokenizer: Path, work: Path, **settings: Any) -> list[dict[str, Any]]:
    """The lines of a recording of two requests, in a stream and whole."""
    path = work / "recording"
    with scripted_proxy(tokenizer, work, record=path, **settings) as proxy:
        for stream in (True, False):
            request = urllib.request.Request(
                f"{proxy.url}/chat/completions",
                json.dumps({**BODY, "stream": stream}).encode(),
                {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as answer:
                answer.read()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_aiperf_reads_both_kinds_of_recording(tiny_tokenizer: Path, tmp_path: Path) -> None:
    works = {name: tmp_path / name for name in ("lengths", "content")}
    for work in works.values():
        work.mkdir()
    lengths = recorded(tiny_tokenizer, works["lengths"])
    recorded(tiny_tokenizer, works["content"], record_content=True)
    paths = {name: str(work / "recording") for name, work in works.items()}
    seen = Client(script="aiperf_trace.py").run(**paths)
    for line, trace in zip(lengths, seen["lengths"], strict=True):
        told = ("timestamp", "input_length", "output_length", "hash_ids")
        assert trace == {**{name: line[name] for name in told}, "type": "mooncake_trace"}
    assert [trace["payload"] for trace in seen["content"]] == [
        {**BODY, "stream": True},
        {**BODY, "stream": False},
    ]
