"""Requests that are too slow or too large: cut off early, whatever part of them it is."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest
from abused import MAX_BODY_BYTES, MAX_HEADER_BYTES, PATIENCE_SECONDS, Proxy
from raw_client import (
    ALLOWED_GROWTH_BYTES,
    ASK,
    ENDLESS,
    GET,
    LONG,
    POST,
    at_rest,
    closed,
    dribbled,
    flooded,
    opened,
    posted,
    said,
    serves,
    statuses,
)


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"POST /v1/completions HTTP/1.1\r\n", b"a: b\r\n"),
        (POST + b"Content-Length: 1000\r\n\r\n", b" "),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (GET, b"\r\n"),
    ],
    ids=["head", "body", "chunks", "extension", "newlines"],
)
async def test_many_who_drip_are_cut_off_while_others_are_served(
    proxy: Proxy, head: bytes, drop: bytes
) -> None:
    slow = [asyncio.create_task(dribbled(proxy, head, drop)) for _ in range(200)]
    await asyncio.sleep(PATIENCE_SECONDS / 2)
    assert await serves(proxy)
    for answer in await asyncio.wait_for(asyncio.gather(*slow), LONG):
        answered = [200] if head == GET else []
        # a reset may come before what was said
        assert statuses(answer) in ([*answered, 408], answered, [])


PIECE = b"x" * 65536
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece", "status"),
    [
        (POST + b"Content-Length: %d\r\n\r\n" % 10**11, PIECE, 413),
        (CHUNKED, b"10000\r\n" + PIECE + b"\r\n", 413),
        (CHUNKED + b"7fffffffffffffff\r\n", PIECE, 413),
        (CHUNKED + b"1;", PIECE, 431),
        (CHUNKED + b"1\r\n1\r\n0\r\n", b"a: b\r\n" * 10_000, 431),
        (CHUNKED + b"1\r\n1\r\n0\r\na: ", PIECE, 431),
        (b"POST /v1/completions HTTP/1.1\r\n", b"a: b\r\n" * 10_000, 431),
        (b"GET /", PIECE, 431),
        (b"", b"\r\n" * 30_000, 431),
    ],
    ids=[
        *("declared", "chunks", "chunk", "extension", "trailers", "trailer"),
        *("headers", "target", "newlines"),
    ],
)
async def test_floods_are_stopped_early(
    proxy: Proxy, head: bytes, piece: bytes, status: int
) -> None:
    before = proxy.rss_bytes
    floods = [flooded(proxy, head, piece, 10**10) for _ in range(4)]
    answers = await asyncio.wait_for(asyncio.gather(*floods), LONG)
    assert proxy.rss_bytes - before < ALLOWED_GROWTH_BYTES
    for answer in answers:
        assert statuses(answer) in ([status], [])


async def test_who_asks_first_whether_a_huge_body_is_wanted_is_told(proxy: Proxy) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
    assert statuses(await said(proxy, head)) == [413]
    reader, writer = await opened(proxy)
    writer.write(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(ASK))
    assert b" 100 " in await asyncio.wait_for(reader.readline(), LONG)
    writer.write(ASK)
    await reader.readline()
    assert b" 200 " in await asyncio.wait_for(reader.readline(), LONG)
    await closed(writer)


async def test_heads_are_bounded_each_by_itself(proxy: Proxy) -> None:
    """Many large ones on one connection are no larger one."""
    large = b"GET /version HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * (MAX_HEADER_BYTES // 2))
    reader, writer = await opened(proxy)
    for _ in range(20):
        writer.write(large)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG)
        assert statuses(head) == [200]
        (size,) = re.findall(rb"content-length: (\d+)", head)
        await reader.readexactly(int(size))
    await closed(writer)


async def test_who_stops_to_read_is_cut_off_and_nothing_is_kept_for_him(proxy: Proxy) -> None:
    before, socks = proxy.rss_bytes, []
    for _ in range(10):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", proxy.port))
        sock.sendall(posted(ENDLESS))
        socks.append(sock)
    await asyncio.sleep(PATIENCE_SECONDS / 2)
    assert await serves(proxy)
    assert proxy.rss_bytes - before < ALLOWED_GROWTH_BYTES
    try:
        await at_rest(proxy)
    finally:
        for sock in socks:
            sock.close()
