from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from fake_triton import Send, answer, empty_final, failure, fake_triton
from live_proxy import MODEL, LiveProxy, config, live_proxy
from small_tokenizers import byte_level, ids, write_folder
from waiting import eventually

from server.app import create_app
from server.backend.memory import MemoryBackend, Script
from server.backend.triton import TritonBackend
from server.edge.connection import Connection
from server.errors import UnusableSettingError
from server.run import run, serve
from triton_repo.launch.ports import free_ports

TOKENIZER = byte_level()
BODY: dict[str, Any] = {"model": MODEL, "prompt": "a", "max_tokens": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("run"), TOKENIZER)


async def test_a_drain_lets_running_answers_finish_and_takes_no_new_ones(folder: Path) -> None:
    singly = [[token] for token in ids(TOKENIZER, "one two three four five six")]
    backend = MemoryBackend(Script(messages=singly, delay_seconds=0.1))
    async with live_proxy(config(folder), backend) as proxy:
        body = {**BODY, "stream": True}
        async with proxy.http.stream("POST", "/v1/completions", json=body) as response:
            lines = response.aiter_lines()
            received = [await anext(lines)]
            proxy.stop.set()
            await eventually(lambda: not _is_listening(proxy.port))
            assert backend.given < len(singly), "it is still being answered"
            received += [line async for line in lines]
    assert received[-2:] == ["data: [DONE]", ""]
    assert backend.cancelled == []


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


async def _is_healthy(proxy: LiveProxy) -> bool:
    return (await proxy.http.get("/health")).status_code == 200


@pytest.mark.parametrize("hurry", [False, True])
async def test_a_drain_ends_in_time_and_tells_whoever_still_waits(
    folder: Path, hurry: bool
) -> None:
    backend = MemoryBackend(Script(messages=[ids(TOKENIZER, "x")], hang=True))
    settings = config(folder, drain_seconds=60 if hurry else 1)
    async with live_proxy(settings, backend) as proxy:
        upload = asyncio.create_task(_stalled_upload(proxy.url))
        await eventually(lambda: proxy.app.serving.room.held_bytes)
        whole = asyncio.create_task(proxy.http.post("/v1/completions", json=BODY))
        stream = asyncio.create_task(
            proxy.http.post("/v1/completions", json={**BODY, "stream": True})
        )
        await eventually(lambda: backend.running == 2)
        started = time.monotonic()
        (proxy.hurry if hurry else proxy.stop).set()
        proxy.stop.set()
        answers = await asyncio.wait_for(asyncio.gather(whole, stream), 30)
        assert (await upload).startswith(b"HTTP/1.1 503 ")
        assert time.monotonic() - started > (0 if hurry else 0.9)
    assert [answer.status_code for answer in answers] == [503, 200]
    assert answers[0].json()["error"]["code"] == "service_unavailable"
    *_, error, _, done, _, _ = answers[1].text.split("\n")
    assert "shutting down" in error
    assert done == "data: [DONE]"
    assert len(backend.cancelled) == 2


async def _stalled_upload(url: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    try:
        return await reader.read()
    finally:
        writer.close()


def test_an_address_in_use_is_an_error_that_can_be_told(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = config(folder, port=taken.getsockname()[1])
        app = create_app(settings, MemoryBackend(Script(messages=[])))
        with pytest.raises(UnusableSettingError, match="in use; choose another --port"):
            run(_serve(app, settings))


async def _serve(app: Any, settings: Any) -> None:
    await serve(app, settings, stop=asyncio.Event())


async def test_a_request_goes_all_the_way_to_triton_and_back(folder: Path) -> None:
    answered = ids(TOKENIZER, "Köln 😀 fox")

    async def behave(request: Any, send: Send) -> None:
        for token in answered:
            await send(answer([token]))
        await send(empty_final())

    async with fake_triton(behave) as triton:
        settings = config(folder, triton_addresses=(triton.address,))
        async with live_proxy(settings, TritonBackend(settings)) as proxy:
            assert (await proxy.http.get("/health")).status_code == 200
            whole = await proxy.openai.completions.create(**BODY)
            stream = await proxy.openai.completions.create(**BODY, stream=True)
            pieces = [chunk.choices[0].text async for chunk in stream]
    assert whole.choices[0].text == "".join(pieces) == "Köln 😀 fox"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == len(answered)


async def test_a_client_that_leaves_frees_tritons_slot_within_one_step(folder: Path) -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([5]))
        await asyncio.Event().wait()

    async with fake_triton(behave) as triton:
        settings = config(folder, triton_addresses=(triton.address,))
        async with live_proxy(settings, TritonBackend(settings)) as proxy:
            for stream in (False, True):
                triton.cancellation.clear()
                body = {**BODY, "stream": stream}
                asking = asyncio.create_task(proxy.http.post("/v1/completions", json=body))
                await eventually(lambda asked=1 + stream: len(triton.requests) == asked)
                asking.cancel()
                await asyncio.wait_for(triton.cancellation.wait(), 20)


async def test_a_triton_that_is_away_is_503_at_once_and_serves_again_when_back(
    folder: Path,
) -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer(ids(TOKENIZER, "x"), final=True))

    [port] = free_ports("127.0.0.1", 1)
    settings = config(folder, triton_addresses=(f"127.0.0.1:{port}",))
    async with live_proxy(settings, TritonBackend(settings)) as proxy:
        away = await asyncio.wait_for(proxy.http.post("/v1/completions", json=BODY), 20)
        assert away.status_code == 503
        assert "127.0.0.1" not in away.text, "where it is is not the client's matter"
        assert (await proxy.http.get("/health")).status_code == 503
        async with fake_triton(behave, port):
            await eventually(lambda: _is_healthy(proxy))
            back = await proxy.http.post("/v1/completions", json=BODY)
    assert back.json()["choices"][0]["text"] == "x"


async def test_what_triton_says_in_words_reaches_the_client(folder: Path) -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(failure("Exceeds maximum queue size"))

    async with fake_triton(behave) as triton:
        settings = config(folder, triton_addresses=(triton.address,))
        async with live_proxy(settings, TritonBackend(settings)) as proxy:
            full = await proxy.http.post("/v1/completions", json=BODY)
    assert full.status_code == 429
    assert full.json()["error"]["message"] == "Exceeds maximum queue size"


async def test_a_drain_waits_for_no_client_that_reads_nothing(folder: Path) -> None:
    async with live_proxy(config(folder, drain_seconds=0.1), MemoryBackend(Script())) as proxy:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", proxy.port))
            deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
            await asyncio.sleep(0.2)
            proxy.stop.set()
            await eventually(lambda: not _is_listening(proxy.port))
            await asyncio.wait_for(proxy.serving, 20)


async def test_a_drain_ends_though_a_connection_never_says_that_it_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "connection_lost", lambda *_: None)
    monkeypatch.setattr("server.run._FAREWELL_SECONDS", 0.01)
    async with live_proxy(config(folder, drain_seconds=0.1), MemoryBackend(Script())) as proxy:
        assert (await proxy.http.get("/ping")).status_code == 200
        proxy.stop.set()
        await asyncio.wait_for(proxy.serving, 20)
