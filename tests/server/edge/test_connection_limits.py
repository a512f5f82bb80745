"""Promise: a client that is slow, too large or no client at all is sent away, and others go on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from live_proxy import MODEL, LiveProxy, closed, config, live_proxy
from small_tokenizers import byte_level, write_folder
from waiting import eventually

from server.backend.memory import MemoryBackend, Script
from server.edge.connection import Connection

TOKENIZER = byte_level()
IDS: list[int] = TOKENIZER.encode("Hi, fox", add_special_tokens=False).ids
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"model": MODEL, "prompt": "a"}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("connections"), TOKENIZER)


@asynccontextmanager
async def limited(folder: Path, patience_seconds: float) -> AsyncIterator[LiveProxy]:
    limits = {
        "header_seconds": patience_seconds,
        "body_seconds": patience_seconds,
        "keep_alive_seconds": 1,
        "max_header_bytes": 4096,
        "max_connections": 20,
    }
    backend = MemoryBackend(Script(messages=[IDS]))
    async with live_proxy(config(folder, **limits), backend) as proxy:
        yield proxy
        answer = await proxy.http.post("/v1/completions", content=BODY)
        assert answer.json()["choices"][0]["text"] == "Hi, fox", "it lives on"


@pytest.fixture
async def proxy(folder: Path) -> AsyncIterator[LiveProxy]:
    """One that small sizes are enough for."""
    async with limited(folder, 60) as proxy:
        yield proxy


@pytest.fixture
async def hasty(folder: Path) -> AsyncIterator[LiveProxy]:
    """One with little patience."""
    async with limited(folder, 0.3) as proxy:
        yield proxy


async def said(proxy: LiveProxy, *pieces: bytes, every_seconds: float = 0.0) -> bytes:
    """All that the proxy answers to these pieces, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    reading = asyncio.create_task(reader.read())
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(every_seconds)
            if reading.done():
                break
        return await asyncio.wait_for(reading, 20)
    except ConnectionError:
        return b""
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await closed(writer)


def status_and_code(answer: bytes) -> tuple[int, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def test_a_head_that_never_ends_is_cut_off(hasty: LiveProxy) -> None:
    drops = [b"POST /v1/completions HTTP/1.1\r\n", *[b"a: b\r\n"] * 100]
    answer = await said(hasty, *drops, every_seconds=0.05)
    assert status_and_code(answer) == (408, "request_timeout")


async def test_a_body_that_never_ends_is_cut_off_and_takes_no_place(hasty: LiveProxy) -> None:
    drops = [POST + b"Content-Length: 1000\r\n\r\n", *[b" "] * 100]
    answer = await said(hasty, *drops, every_seconds=0.05)
    assert status_and_code(answer) == (408, "request_timeout")
    assert hasty.app.serving.admission.in_flight == 0


async def test_who_says_nothing_is_let_go_before_and_after_a_request(hasty: LiveProxy) -> None:
    assert await said(hasty) == b""
    whole = await said(hasty, POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert whole.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" not in whole


async def test_large_heads_are_refused_whether_they_come_at_once_or_never_end(
    proxy: LiveProxy,
) -> None:
    for bomb in (
        [POST + b"a: " + b"x" * 5000 + b"\r\n\r\n"],
        [POST + b"a: " + b"x" * 5000],
        [POST + b"a: b\r\n" * 1000],
        [b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n"],
    ):
        assert status_and_code(await said(proxy, *bomb)) == (431, "headers_too_large")


async def test_a_large_body_with_its_head_is_no_large_head(proxy: LiveProxy) -> None:
    body = json.dumps({"model": MODEL, "prompt": "a", "user": "x" * 50_000}).encode()
    request = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert (await said(proxy, request)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_openais_shape(proxy: LiveProxy, noise: bytes) -> None:
    assert status_and_code(await said(proxy, noise))[0] == 400


async def test_a_body_that_is_too_large_is_refused_while_it_comes(folder: Path) -> None:
    backend = MemoryBackend(Script(messages=[IDS]))
    settings = config(folder, max_body_bytes=1000, body_seconds=0.5)
    async with live_proxy(settings, backend) as proxy:
        piece = b"%x\r\n" % 500 + b" " * 500 + b"\r\n"
        begun = POST + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 3
        answer = await said(proxy, begun, *[piece] * 40, every_seconds=0.05)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1, "and it isn't listened to for ever"


async def test_bodies_together_take_no_more_than_they_may(folder: Path) -> None:
    backend = MemoryBackend(Script(messages=[IDS]))
    async with live_proxy(config(folder, max_held_bytes=60_000), backend) as proxy:
        body = json.dumps({"model": MODEL, "prompt": "a", "user": "x" * 40_000}).encode()
        half = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1]
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(half)
        await eventually(lambda: proxy.app.serving.room.held_bytes)
        refused = await proxy.http.post("/v1/completions", content=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        writer.write(body[-1:])
        assert b"200 OK" in await reader.readline()
        await closed(writer)
        assert (await proxy.http.post("/v1/completions", content=body)).status_code == 200
        await eventually(lambda: not proxy.app.serving.room.held_bytes)


async def test_too_many_connections_are_refused_and_room_is_made_again(proxy: LiveProxy) -> None:
    opened = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(20)]
    assert status_and_code(await said(proxy)) == (503, "service_unavailable")
    await asyncio.gather(*(closed(writer) for _, writer in opened))


async def test_requests_on_one_connection_are_answered_in_turn(proxy: LiveProxy) -> None:
    one = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    last = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    assert (await said(proxy, one + one + last)).count(b"HTTP/1.1 200 ") == 3
    split = [(one + last)[start : start + 100] for start in range(0, len(one + last), 100)]
    assert (await said(proxy, *split, every_seconds=0.01)).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("more", [b"\r\n", b"GET /vers"])
async def test_what_comes_after_a_whole_request_doesnt_cost_its_answer(
    folder: Path, more: bytes
) -> None:
    backend = MemoryBackend(Script(messages=[IDS], delay_seconds=0.8))
    async with live_proxy(
        config(folder, header_seconds=0.4, keep_alive_seconds=1), backend
    ) as proxy:
        request = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        assert b"Hi, fox" in await said(proxy, request + more)


async def test_who_reads_nothing_of_what_it_asked_for_is_let_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, losing = asyncio.Event(), Connection.connection_lost

    def noted(self: Connection, exc: Exception | None) -> None:
        lost.set()
        losing(self, exc)

    monkeypatch.setattr(Connection, "connection_lost", noted)
    settings = config(folder, reader_seconds=0.2, keep_alive_seconds=1)
    async with live_proxy(settings, MemoryBackend(Script())) as proxy:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", proxy.port))
            deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
            await asyncio.wait_for(lost.wait(), 20)


async def test_refusing_whoever_has_too_many_in_line_fails_no_request(
    proxy: LiveProxy, caplog: pytest.LogCaptureFixture
) -> None:
    request = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    await said(proxy, request * 40)
    await eventually(lambda: not proxy.app.serving.admission.in_flight)
    assert not caplog.records


async def test_a_client_of_http_1_0_gets_its_stream_until_the_connection_closes(
    proxy: LiveProxy,
) -> None:
    """As `ab`, old health checkers and nginx ask by default; chunks are of HTTP/1.1 alone."""
    body = json.dumps({"model": MODEL, "prompt": "a", "stream": True}).encode()
    ask = b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    head, _, events = (await said(proxy, ask)).lower().partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0]
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert events.startswith(b"data: {")
    assert events.endswith(b"}\n\ndata: [done]\n\n")
    head, _, plain = (await said(proxy, ask.replace(b"true", b"null"))).partition(b"\r\n\r\n")
    assert json.loads(plain)["choices"][0]["text"] == "Hi, fox"
    assert b"content-length: %d" % len(plain) in head.lower()
