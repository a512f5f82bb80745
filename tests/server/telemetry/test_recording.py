"""Promise: a recording has each request's load, can be asked again, and tells no text unasked."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from exposed import config as bare_config
from exposed import series, value
from live_proxy import MODEL, LiveProxy, config, live_proxy, served
from small_tokenizers import byte_level, write_folder

from server.auth.key import ApiKey, digest
from server.backend.base import GenerateRequest
from server.backend.memory import MemoryBackend, Script
from server.errors import InternalError, OutputError
from server.telemetry import Telemetry, exchange_of
from server.telemetry.meter import RequestMeter
from server.telemetry.recorder import BLOCK_TOKENS, hashes

TOKENIZER = byte_level()
SECRET = "the client's own words"
KEY = "sk-never-told"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}]}
SAYS = [[token] for token in TOKENIZER.encode("one two", add_special_tokens=False).ids]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tokenizer"), TOKENIZER)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_id(path: Path) -> dict[str, dict[str, Any]]:
    return {line["trtbuild"]["request_id"]: line for line in lines(path)}


async def ask(proxy: LiveProxy, name: str, route: str, body: dict[str, Any] | str) -> Any:
    headers = {"x-request-id": name, "authorization": f"Bearer {KEY}"}
    content = body if isinstance(body, str) else json.dumps(body)
    return await proxy.http.post(route, content=content, headers=headers)


async def test_a_line_is_a_load_with_its_outcome_and_without_its_text(
    folder: Path, tmp_path: Path
) -> None:
    path, hangs = tmp_path / "recording", asyncio.Event()

    def answer(request: GenerateRequest) -> Script:
        if request.seed == 1:
            return Script(messages=SAYS, failure=InternalError("it broke"))
        if request.seed == 2:
            hangs.set()
            return Script(hang=True)
        return Script(messages=SAYS)

    key = ApiKey(name="alice", sha256=digest(KEY))
    backend = MemoryBackend(answer)
    async with live_proxy(config(folder, record=path, api_keys=(key,)), backend) as proxy:
        chat, text = "/v1/chat/completions", "/v1/completions"
        await ask(proxy, "whole", chat, {**CHAT, "temperature": 0.5, "stop": [SECRET]})
        await ask(proxy, "stream", chat, {**CHAT, "stream": True})
        await ask(proxy, "several", text, {"model": MODEL, "prompt": [SECRET, SECRET], "n": 2})
        await ask(proxy, "response", "/v1/responses", {"model": MODEL, "input": SECRET})
        await ask(proxy, "failed", chat, {**CHAT, "seed": 1})
        await ask(proxy, "refused", chat, {**CHAT, "messages": SECRET})
        leaving = asyncio.ensure_future(ask(proxy, "left", chat, {**CHAT, "seed": 2}))
        await hangs.wait()
        leaving.cancel()
    found = by_id(path)
    assert {name: line["trtbuild"]["outcome"] for name, line in found.items()} == {
        **dict.fromkeys(("whole", "stream", "several", "response"), "ok"),
        "failed": "500",
        "left": "cancelled",
    }, "who never had a prompt is no load"
    asked = [len(request.input_ids) for request in backend.requests]
    assert found["whole"]["input_length"] == asked[0]
    assert found["several"]["input_length"] == asked[2] + asked[3]
    assert found["several"]["output_length"] == 4 * len(SAYS)
    assert found["left"]["output_length"] == 1, "nobody can ask for no token"
    whole, stream = found["whole"], found["stream"]
    assert whole["hash_ids"] == stream["hash_ids"]
    assert 0 < whole["timestamp"] < stream["timestamp"]
    told = whole["trtbuild"]
    assert told["asked"] == {"n": 1, "temperature": 0.5, "stop": 1}
    names = ("key", "route", "status", "model", "stream", "prompt_tokens", "completion_tokens")
    assert [told[name] for name in names] == [
        *("alice", chat, 200, MODEL, False, asked[0], len(SAYS))
    ]
    assert min(told[name] for name in ("ttft_ms", "tpot_ms", "duration_ms")) >= 0
    text = path.read_text()
    assert SECRET not in text
    assert KEY not in text
    assert "127.0.0.1" not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_with_content_each_request_is_there_as_it_came_and_can_be_asked_again(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recording"
    bodies = {
        "/v1/chat/completions": {**CHAT, "metadata": {"of": "ours"}, "stream": True},
        "/v1/completions": {"model": MODEL, "prompt": [5, 6, 7], "logit_bias": {"7": -1.5}},
        "/v1/responses": {"model": MODEL, "input": "a\r\nb", "store": False},
    }
    backend = MemoryBackend(Script(messages=SAYS))
    settings = config(folder, record=path, record_content=True)
    async with live_proxy(settings, backend) as proxy:
        for route, body in bodies.items():
            spread = json.dumps(body, indent=2).replace("\n", "\r\n")
            assert (await ask(proxy, route[1:].replace("/", "-"), route, spread)).is_success
    recorded = {line["trtbuild"]["route"]: line for line in lines(path)}
    assert {route: line["payload"] for route, line in recorded.items()} == bodies
    assert not any({"input_length", "hash_ids"} & line.keys() for line in recorded.values())
    assert KEY not in path.read_text()
    async with live_proxy(config(folder), backend) as proxy:
        for route, line in recorded.items():
            assert (await ask(proxy, "again", route, line["payload"])).status_code == 200
    first, second = backend.requests[:3], backend.requests[3:]
    assert [r.input_ids for r in first] == [r.input_ids for r in second]


async def test_an_embedding_is_a_load_without_an_answer(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    encoder = served(folder, name="encoder", task="embed")
    settings = config(folder, models=(encoder,), record=path)
    async with live_proxy(settings, MemoryBackend(Script())) as proxy:
        body = {"model": "encoder", "input": [[5, 6], [7]]}
        assert (await ask(proxy, "e", "/v1/embeddings", body)).is_success
    [line] = lines(path)
    assert (line["input_length"], "output_length" in line) == (3, False)


def test_prompts_share_the_hashes_of_the_blocks_that_they_begin_with_alike() -> None:
    begins = [*range(2 * BLOCK_TOKENS)]
    long, other = [*begins, 7, 8], [*begins, 9]
    secret = b"s"
    assert len(hashes(long, secret)) == 3
    assert hashes(long, secret)[:2] == hashes(other, secret)[:2] == hashes(begins, secret)
    assert hashes(long, secret)[2] != hashes(other, secret)[2]
    assert hashes(begins[BLOCK_TOKENS:], secret)[0] not in hashes(begins, secret)
    assert not set(hashes(long, b"t")) & set(hashes(long, secret)), "nobody can try texts"
    assert hashes([], secret) == []
    assert max(hashes(range(10_000), secret)) < 2**53


def recorded(telemetry: Telemetry, prompt: int = 3) -> None:
    """One request, from its arrival to its end."""
    scope = {"type": "http", "method": "POST", "headers": [], "client": ("10.0.0.7", 4711)}
    exchange = telemetry.arrived(scope, path="/p", endpoint="e", request_id="r")
    with RequestMeter(
        telemetry.metrics, model="m", endpoint="e", exchange=exchange_of(scope)
    ) as meter:
        meter.prompts([[1] * prompt])
    telemetry.over(exchange)


async def record_once(**values: Any) -> Telemetry:
    """A start of the proxy, one request, its end."""
    telemetry = Telemetry(bare_config(**values))
    recorded(telemetry)
    await telemetry.close()
    return telemetry


async def test_a_recording_goes_on_after_a_new_start(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    await record_once(record=path, began=1.0)
    await record_once(record=path)
    first, second = lines(path)
    assert second["timestamp"] >= first["timestamp"] > 1e12, "both since the first start"
    assert second["hash_ids"] != first["hash_ids"], "a secret lives no longer than its proxy"


async def test_a_file_that_is_no_recording_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text('{"timestamp": 5}\n')
    for wrong in (path, tmp_path, tmp_path / "missing" / "file", Path("/dev/full")):
        with pytest.raises(OutputError, match="recording"):
            Telemetry(bare_config(record=wrong))
    assert path.read_text() == '{"timestamp": 5}\n'


async def test_a_full_recording_ends_with_a_whole_line_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "recording"
    telemetry = Telemetry(bare_config(record=path, record_max_bytes=1500))
    for prompt in (3, 3000, 3, 3):
        recorded(telemetry, prompt)
    await telemetry.close()
    found = series(await telemetry.metrics.text())
    assert [line["input_length"] for line in lines(path)] == [3], "without holes, to its end"
    assert value(found, "trtbuild_lost_lines_total", file="recording") == 3
    assert len(caplog.messages) == 1
    assert "1500 bytes" in caplog.text


APPENDS = """
import resource, sys
from pathlib import Path
from server.telemetry.line_file import LineFile
path, letter, size, count, most = Path(sys.argv[1]), sys.argv[2].encode(), *map(int, sys.argv[3:])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
file = LineFile(path, what="lines", max_bytes=10**9)
line = letter * size + b"\\n"
for _ in range(count):
    file.write(lambda: line, len(line))
file.close()
print(file.lost)
"""


def appending(path: Path, letter: str, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDS, str(path), letter, *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_lines_of_several_processes_are_whole_however_long(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for process in [appending(path, letter, 100_000, 50, 10**9) for letter in "ab"]:
        assert process.communicate()[0] == "0\n"
    assert sorted(path.read_text().split()) == ["a" * 100_000] * 50 + ["b" * 100_000] * 50


def test_what_a_full_disk_takes_of_a_line_doesn_t_stay(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("before\n")
    lost, said = appending(path, "a", 1000, 3, 500).communicate()
    assert lost == "3\n"
    assert "File too large" in said
    assert path.read_text() == "before\n"
