"""A client that says whatever it likes, byte by byte."""

from __future__ import annotations

import asyncio
import json
import re

from abused import MODEL, PATIENCE_SECONDS, Proxy
from live_proxy import closed
from waiting import eventually

LONG = 60.0
MIB = 1024 * 1024
ALLOWED_GROWTH_BYTES = 48 * MIB
"""Of one test: less than what any of them sends or asks for, more than an allocator keeps."""
JSON = b"Host: x\r\nContent-Type: application/json\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\n" + JSON
GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
ASK = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 2}).encode()
ENDLESS = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 10**9, "stream": True}).encode()


def posted(body: bytes, path: bytes = b"/v1/completions", more: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n" % (path, JSON, more, len(body))
    return head + body


async def opened(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def said(proxy: Proxy, data: bytes) -> bytes:
    """All that it answers to `data`, until it closes the connection."""
    reader, writer = await opened(proxy)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), LONG)
    except ConnectionError:
        return b""
    finally:
        await closed(writer)


async def serves(proxy: Proxy) -> bool:
    answer = await said(proxy, posted(ASK, more=b"Connection: close\r\n"))
    return answer.startswith(b"HTTP/1.1 200 ")


async def at_rest(proxy: Proxy) -> None:
    """When it has no more requests."""
    asked = b"GET /load HTTP/1.1\r\nConnection: close\r\n\r\n"

    async def rests() -> bool:
        return b'{"server_load":0}' in await said(proxy, asked)

    await eventually(rests, LONG)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


async def dribbled(proxy: Proxy, head: bytes, drop: bytes) -> bytes:
    """What it says to a client that never comes to an end."""
    reader, writer = await opened(proxy)
    reading = asyncio.create_task(reader.read())
    try:
        writer.write(head)
        for _ in range(int(LONG / (PATIENCE_SECONDS / 4))):
            await asyncio.wait({reading}, timeout=PATIENCE_SECONDS / 4)
            if reading.done():
                break
            writer.write(drop)
        return await asyncio.wait_for(reading, 1)
    except ConnectionError:
        return b""
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await closed(writer)


async def flooded(proxy: Proxy, head: bytes, piece: bytes, most_bytes: int) -> bytes:
    """What it says to `piece` again and again; it mustn't take them all."""
    reader, writer = await opened(proxy)
    reading = asyncio.create_task(reader.read())
    sent = 0
    try:
        writer.write(head)
        while not reading.done() and sent < most_bytes:
            writer.write(piece)
            sent += len(piece)
            await asyncio.wait_for(writer.drain(), LONG)
        assert sent < most_bytes or reading.done()
        return await asyncio.wait_for(reading, LONG)
    except ConnectionError:
        return b""  # a reset may come before what was said
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await closed(writer)
