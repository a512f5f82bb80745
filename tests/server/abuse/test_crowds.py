"""Very many clients, and clients that leave in every way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from abused import Proxy
from raw_client import ASK, ENDLESS, GET, LONG, MIB, POST, at_rest, closed, opened, posted, serves


async def test_more_requests_than_anybody_has_in_a_row_are_not_kept(proxy: Proxy) -> None:
    async def crowd() -> None:
        reader, writer = await opened(proxy)
        writer.write(posted(ENDLESS) + b"GET / HTTP/1.1\r\n\r\n" * 3_500)
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(MIB), LONG):
                pass
        await closed(writer)

    crowds = asyncio.gather(*(crowd() for _ in range(50)))
    await asyncio.wait_for(crowds, LONG)


async def test_who_only_closes_his_half_is_answered_or_let_go(proxy: Proxy) -> None:
    for data in (GET, posted(ASK), posted(ENDLESS), POST, b""):
        reader, writer = await opened(proxy)
        writer.write(data)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(MIB), LONG):
                pass
        await closed(writer)


async def test_a_thousand_who_say_nothing_are_let_go(proxy: Proxy) -> None:
    idle = await asyncio.gather(*(opened(proxy) for _ in range(1000)))
    assert await serves(proxy)
    reads = asyncio.gather(*(reader.read() for reader, _ in idle), return_exceptions=True)
    assert not any(isinstance(end, bytes) and end for end in await asyncio.wait_for(reads, LONG))
    for _, writer in idle:
        await closed(writer)


def vanish(writer: asyncio.StreamWriter) -> None:
    """Leave with a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_thousands_come_and_go(proxy: Proxy) -> None:
    begun = (b"", b"POST ", POST, posted(ASK), posted(ENDLESS), posted(ASK)[:-1], GET * 3)

    async def come_and_go(number: int) -> None:
        try:
            _, writer = await opened(proxy)
        except ConnectionError:
            return
        writer.write(begun[number % len(begun)])
        if number % 3:
            await asyncio.sleep(0)
        if number % 2:
            vanish(writer)
        await closed(writer)

    for first in range(0, 2000, 100):
        await asyncio.gather(*(come_and_go(number) for number in range(first, first + 100)))
    await at_rest(proxy)
