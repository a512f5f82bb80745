"""Where a request ends, and what is no request of HTTP/1.1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re

import pytest
from abused import MODEL, Proxy
from raw_client import ASK, ENDLESS, LONG, MIB, POST, closed, opened, posted, said, statuses

BODY = b'{"prompt":"a"}'
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 14\r\nContent-Length: 14\r\n",
        b"Content-Length: 14, 14\r\n",
        b"Content-Length: +14\r\n",
        b"Content-Length: 0x0e\r\n",
        b"Content-Length: 14\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 14\r\n",
        b"Content-Length: 14\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Content-Length: 14\r\n Transfer-Encoding: chunked\r\n",
        b"Content-Length: 14\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 14\r\nX: a\x00b\r\n",
        b"Content-Length: 14\r\nX: a\rb\r\n",
    ],
)
async def test_a_body_whose_end_could_be_told_in_two_ways_is_refused(
    proxy: Proxy, headers: bytes
) -> None:
    answer = await said(proxy, POST + headers + b"\r\n" + BODY + SMUGGLED)
    assert statuses(answer) == [400]
    assert b"unknown_url" not in answer


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500, [400]),
        (b"SSH-2.0-OpenSSH_9.9\r\n", [400]),
        (b"\x00" * 1000, [400]),
        (b"GET /version HTTP/9.9\r\n\r\n", [400]),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [400]),
        (b"GET http://example.com/version HTTP/1.1\r\nConnection: close\r\n\r\n", [200]),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
        (b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n", [404]),
        (b"GET /v1/models/%ff%00%2e%2e HTTP/1.1\r\nConnection: close\r\n\r\n", [404]),
        (b"GET /version?%ff=%00 HTTP/1.1\r\nConnection: close\r\n\r\n", [200]),
    ],
)
async def test_what_is_for_another_kind_of_server_is_refused(
    proxy: Proxy, data: bytes, expected: list[int]
) -> None:
    answer = await said(proxy, data)
    assert statuses(answer) == expected
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\n",
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nConnection: Upgrade\r\n",
    ],
    ids=["h2c", "websocket"],
)
async def test_who_would_speak_another_protocol_is_answered_in_this_one(
    proxy: Proxy, upgrade: bytes
) -> None:
    reader, writer = await opened(proxy)
    for request in (
        b"GET /version HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n",
        posted(ASK, more=upgrade),  # as some clients of HTTP/2 do
        posted(ASK),
    ):
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG)
        assert statuses(head) == [200]
        (size,) = re.findall(rb"content-length: (\d+)", head)
        await reader.readexactly(int(size))
    await closed(writer)


async def test_a_body_that_comes_after_an_upgrade_is_no_request(proxy: Proxy) -> None:
    body = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 2}).encode() + b" " * 100
    upgrade = b"Upgrade: h2c\r\nConnection: Upgrade, close\r\n"
    request = posted(body.replace(b" " * 100, SMUGGLED), more=upgrade)
    start = request.index(b"GET /smuggled")
    reader, writer = await opened(proxy)
    writer.write(request[:start])
    await asyncio.sleep(0.2)
    writer.write(request[start:])
    assert statuses(await asyncio.wait_for(reader.read(), LONG)) == [400], "no JSON"
    await closed(writer)


async def test_requests_in_a_row_are_answered_in_their_order(proxy: Proxy) -> None:
    asked = [
        b"GET /version HTTP/1.1\r\nX-Request-Id: r%d\r\n%b\r\n"
        % (number, b"Connection: close\r\n" if number == 15 else b"")
        for number in range(16)
    ]
    answer = await said(proxy, b"".join(asked))
    assert statuses(answer) == [200] * 16
    ids = re.findall(rb"x-request-id: r(\d+)", answer)
    assert [int(number) for number in ids] == list(range(16))


async def test_noise_after_a_request_is_no_part_of_its_answer(proxy: Proxy) -> None:
    reader, writer = await opened(proxy)
    writer.write(posted(ENDLESS))
    await asyncio.wait_for(reader.readuntil(b"data: "), LONG)
    writer.write(b"\x00 this is no HTTP\r\n\r\n")
    rest = b""
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.wait_for(reader.read(MIB), LONG):
            rest = (rest + piece)[-MIB:]
    assert statuses(rest) == []
    await closed(writer)
