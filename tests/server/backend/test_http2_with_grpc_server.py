"""Promise: the own gRPC client and gRPC's own server understand each other in all that matters."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from waiting import eventually

from server.backend.http2 import frames
from server.backend.http2.address import Address, context
from server.backend.http2.call import Call
from server.backend.http2.channel import Channel
from server.backend.http2.limits import Limits
from server.backend.http2.status import CallError, Status
from server.config import TritonTls
from server.errors import UnusableSettingError
from triton_repo.launch.ports import free_ports

STREAM, UNARY = "/test.Echo/Stream", "/test.Echo/Unary"


@dataclass
class Echo:
    """Answers a list of sizes, as text, with messages of those sizes; `-1` waits for ever."""

    port: int = 0
    written: int = 0
    cancelled: int = 0
    metadata: list[dict[str, str]] = field(default_factory=list)
    time_left: list[float] = field(default_factory=list)

    async def stream(self, requests: Any, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        async for request in requests:
            await self._answer(request, context)

    async def _answer(self, request: bytes, context: Any) -> None:
        try:
            for size in request.split():
                if size == b"-1":
                    await asyncio.Event().wait()
                await context.write(content(int(size)))
                self.written += 1
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.time_left.append(context.time_remaining())
        if request == b"hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if request == b"fail":
            await context.abort(grpc.StatusCode.NOT_FOUND, "k\u00e4se: 100 %\n")
        return request


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@asynccontextmanager
async def echoing(
    port: int = 0, credentials: Any = None, **options: int
) -> AsyncIterator[tuple[Echo, Any]]:
    """A server; options are gRPC's, without `grpc.`."""
    echo = Echo()
    settings = {"so_reuseport": 0, "max_receive_message_length": -1, **options}
    server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in settings.items()])
    methods = {
        "Stream": grpc.stream_stream_rpc_method_handler(echo.stream),
        "Unary": grpc.unary_unary_rpc_method_handler(echo.unary),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", methods)])
    address = f"127.0.0.1:{port}"
    echo.port = (
        server.add_secure_port(address, credentials)
        if credentials
        else server.add_insecure_port(address)
    )
    await server.start()
    try:
        yield echo, server
    finally:
        await server.stop(0)


@asynccontextmanager
async def channel_to(echo: Echo, **values: Any) -> AsyncIterator[Channel]:
    channel = Channel(Address("127.0.0.1", echo.port), **values)
    try:
        yield channel
    finally:
        await channel.close()


async def ask(channel: Channel, *sizes: int) -> Call:
    return await channel.call(STREAM, " ".join(map(str, sizes)).encode(), {})


async def read(call: Call, count: int = 1 << 60) -> list[bytes]:
    """What comes, up to `count` messages or the end. Raises the call's error."""
    found: list[bytes] = []
    while len(found) < count and not (call.ended and not call.messages):
        await asyncio.wait_for(call.wait(), 60)
        found += call.take()
    if call.error is not None:
        raise call.error
    return found


async def test_many_calls_of_random_sizes_some_of_them_cancelled() -> None:
    rng = random.Random(7)

    async def one(channel: Channel) -> None:
        sizes = [rng.choice([0, 1, 150, 16_000, 70_000]) for _ in range(rng.randrange(40))]
        call = await ask(channel, *sizes)
        if rng.random() < 0.3:
            await read(call, rng.randrange(1 + len(sizes)))
            call.cancel()
            return
        assert await read(call) == [content(size) for size in sizes]

    async with echoing() as (echo, _), channel_to(echo) as channel:
        for _ in range(3):
            await asyncio.gather(*(one(channel) for _ in range(40)))
        assert await channel.unary(UNARY, b"still well", timeout_seconds=60) == b"still well"


async def test_a_call_that_nobody_reads_holds_up_the_server_but_no_other_call() -> None:
    async with echoing() as (echo, _), channel_to(echo) as channel:
        unread = await ask(channel, *[1000] * 3_000)
        other = await ask(channel, *[1000] * 500)
        assert len(await read(other)) == 500
        await eventually(lambda: len(unread.messages) > 60)
        before = -1
        while echo.written != before:
            before = echo.written
            await asyncio.sleep(0.3)
        assert sum(map(len, unread.messages)) < 65_536
        assert echo.written < 2_500, "gRPC's own buffers are small"
        assert len(await read(unread)) == 3_000


async def test_messages_much_larger_than_windows_pass_both_ways_up_to_the_bound() -> None:
    limits = Limits(message_bytes=9_000_000)
    async with (
        echoing(max_send_message_length=-1) as (echo, _),
        channel_to(echo, limits=limits) as channel,
    ):
        body = content(8_000_000)
        assert await channel.unary(UNARY, body, timeout_seconds=60) == body
        assert await read(await ask(channel, 3, 8_000_000, 3)) == [
            content(3), content(8_000_000), content(3)
        ]  # fmt: skip
        with pytest.raises(CallError, match="more than the 9000000") as caught:
            await read(await ask(channel, 9_000_001))
        assert caught.value.status == Status.INTERNAL


async def test_calls_beyond_the_servers_limit_take_further_connections_and_then_wait() -> None:
    async with echoing(max_concurrent_streams=2) as (echo, _), channel_to(echo) as channel:
        waiting = [asyncio.create_task(ask(channel, 5, -1)) for _ in range(40)]
        await eventually(lambda: sum(task.done() for task in waiting) == 32)
        begun = [task.result() for task in waiting if task.done()]
        for call in begun:
            assert (await read(call, 1)) == [content(5)]
            call.cancel()
        await eventually(lambda: all(task.done() for task in waiting))


async def test_a_server_that_ages_connections_out_loses_no_call() -> None:
    async with (
        echoing(max_connection_age_ms=200, max_connection_age_grace_ms=60_000) as (echo, _),
        channel_to(echo) as channel,
    ):
        refusals: list[CallError] = []

        async def ask_on() -> None:
            for _ in range(40):
                try:
                    assert await read(await ask(channel, 1, 2, 3)) == list(map(content, (1, 2, 3)))
                except CallError as error:
                    refusals.append(error)
                await asyncio.sleep(0.02)

        long = await ask(channel, *[1000] * 1000)
        begun = time.monotonic()
        await asyncio.gather(ask_on(), ask_on())
        ages = (time.monotonic() - begun) / 0.2
        assert len(await read(long)) == 1000
        assert len(refusals) <= 2 * (1 + ages), "two askers lose a call each to an ageing, at most"
        assert all(error.untaken for error in refusals)


async def test_a_server_that_dies_ends_its_calls_and_is_found_again() -> None:
    [port] = free_ports("127.0.0.1", 1)
    async with echoing(port):
        channel = Channel(Address("127.0.0.1", port))
        calls = [await ask(channel, 5, -1) for _ in range(5)]
        for call in calls:
            await read(call, 1)
    for call in calls:
        with pytest.raises(CallError):
            await read(call)
    with pytest.raises(CallError) as caught:
        await channel.unary(UNARY, b"anyone?", timeout_seconds=60)
    assert caught.value.status == Status.UNAVAILABLE
    async with echoing(port):
        await eventually(lambda: channel.connected)
        assert await channel.unary(UNARY, b"back", timeout_seconds=60) == b"back"
    await channel.close()


async def test_statuses_words_metadata_and_deadlines_arrive() -> None:
    async with echoing() as (echo, _), channel_to(echo) as channel:
        with pytest.raises(CallError) as caught:
            await channel.unary(UNARY, b"fail", timeout_seconds=60)
        assert (caught.value.status, caught.value.message) == (
            Status.NOT_FOUND,
            "k\u00e4se: 100 %\n",
        )
        assert 0 < echo.time_left[0] < 61
        with pytest.raises(CallError) as caught:
            await channel.unary(UNARY, b"hang", timeout_seconds=0.2)
        assert caught.value.status == Status.DEADLINE_EXCEEDED
        await eventually(lambda: echo.cancelled)
        with pytest.raises(CallError) as caught:
            await channel.unary("/test.Echo/Missing", b"", timeout_seconds=60)
        assert caught.value.status == Status.UNIMPLEMENTED
        call = await channel.call(STREAM, b"", {"tracestate": "x=" * 9_000})
        with pytest.raises(CallError):  # gRPC's server refuses headers of so many bytes
            await read(call)
        call = await channel.call(STREAM, b"1", {"traceparent": "00-12-34-01"})
        await read(call)
        assert echo.metadata[-1]["traceparent"] == "00-12-34-01"


async def test_a_client_that_goes_is_seen_by_the_server() -> None:
    async with echoing() as (echo, _):
        async with channel_to(echo) as channel:
            for _ in range(3):
                await read(await ask(channel, 5, -1), 1)
        await eventually(lambda: echo.cancelled == 3)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    ca, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    mine = ca.issue_cert("proxy@example.org")
    mine.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    mine.private_key_pem.write_to_path(folder / "key.pem")
    return ca, folder


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_is_checked_in_both_directions(
    authority: tuple[trustme.CA, Path], mutual: bool
) -> None:
    ca, folder = authority
    server = ca.issue_cert("127.0.0.1")
    pairs = [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())]
    roots = ca.cert_pem.bytes() if mutual else None
    credentials = grpc.ssl_server_credentials(pairs, roots, mutual)
    good = TritonTls(
        ca=folder / "ca.pem",
        certificate=folder / "cert.pem" if mutual else None,
        key=folder / "key.pem" if mutual else None,
    )
    bad = TritonTls(ca=folder / "ca.pem") if mutual else TritonTls()
    async with echoing(credentials=credentials) as (echo, _):
        async with channel_to(echo, tls=context(good)) as channel:
            assert await channel.unary(UNARY, b"secret", timeout_seconds=60) == b"secret"
            assert len(await read(await ask(channel, *[50_000] * 20))) == 20
        for refused in (context(bad), None):
            async with channel_to(echo, tls=refused) as channel:
                with pytest.raises(CallError) as caught:
                    await channel.unary(UNARY, b"secret", timeout_seconds=60)
                assert caught.value.status == Status.UNAVAILABLE


async def test_a_name_that_the_certificate_lacks_is_refused(
    authority: tuple[trustme.CA, Path],
) -> None:
    ca, folder = authority
    other = ca.issue_cert("elsewhere.example.org")
    pairs = [(other.private_key_pem.bytes(), other.cert_chain_pems[0].bytes())]
    async with (
        echoing(credentials=grpc.ssl_server_credentials(pairs)) as (echo, _),
        channel_to(echo, tls=context(TritonTls(ca=folder / "ca.pem"))) as channel,
    ):
        with pytest.raises(CallError, match="certificate"):
            await channel.unary(UNARY, b"secret", timeout_seconds=60)


async def test_a_server_that_never_answers_the_connection_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        channel = Channel(address, limits=Limits(connect_seconds=0.3))
        with pytest.raises(CallError, match=r"within 0\.3 s") as caught:
            await channel.call(STREAM, b"", {})
        assert (caught.value.status, caught.value.untaken) == (Status.UNAVAILABLE, True)
        await channel.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [("localhost:8001", "localhost:8001"), ("[::1]:80", "[::1]:80"), ("10.0.0.1:1", "10.0.0.1:1")],
)
def test_addresses_are_read(text: str, found: str) -> None:
    assert str(Address.parse(text)) == found


@pytest.mark.parametrize("text", ["localhost", ":8001", "host:0", "host:x", "host:70000", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UnusableSettingError, match="host:port"):
        Address.parse(text)


def test_files_that_hold_no_certificate_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for tls in (
        TritonTls(ca=tmp_path / "ca.pem"),
        TritonTls(certificate=tmp_path / "ca.pem", key=tmp_path / "ca.pem"),
    ):
        with pytest.raises(UnusableSettingError, match=r"ca\.pem"):
            context(tls)


async def test_a_peer_that_leaves_as_soon_as_it_is_there_is_not_besieged() -> None:
    come = 0

    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal come
        come += 1
        writer.write(frames.settings({}) + frames.goaway(frames.NO_ERROR))
        writer.close()

    server = await asyncio.start_server(leave, "127.0.0.1", 0)
    channel = Channel(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
    channel.connect()
    await eventually(lambda: come)
    await asyncio.sleep(1)
    await channel.close()
    server.close()
    assert 0 < come < 10


async def test_room_for_many_is_used_by_all_who_wait_for_it() -> None:
    more, here = asyncio.Event(), 0

    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal here
        here += 1
        writer.write(frames.settings({frames.MAX_CONCURRENT_STREAMS: 0}))
        await more.wait()
        writer.write(frames.settings({frames.MAX_CONCURRENT_STREAMS: 100}))
        await reader.read()
        writer.close()
        await writer.wait_closed()
        here -= 1

    server = await asyncio.start_server(later, "127.0.0.1", 0)
    channel = Channel(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
    calls = [asyncio.create_task(channel.call(STREAM, b"", {})) for _ in range(40)]
    await eventually(lambda: channel.connected)
    await asyncio.sleep(0.1)
    more.set()
    await asyncio.wait_for(asyncio.gather(*calls), 20)
    await channel.close()
    await eventually(lambda: not here)
    server.close()


async def test_a_further_connection_that_failed_is_no_reason_to_refuse_calls_later() -> None:
    peers: list[asyncio.StreamWriter] = []
    gone = 0

    async def one_call_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal gone
        peers.append(writer)
        writer.write(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}))
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone += 1

    server = await asyncio.start_server(one_call_each, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    channel = Channel(Address("127.0.0.1", port))
    first = await channel.call(STREAM, b"", {})
    server.close()
    waiting = asyncio.create_task(channel.call(STREAM, b"", {}))
    await asyncio.sleep(0.5)  # a second connection is tried, and refused
    first.cancel()
    second = await asyncio.wait_for(waiting, 20)
    server = await asyncio.start_server(one_call_each, "127.0.0.1", port)
    untaken = bytes(4) + frames.NO_ERROR.to_bytes(4, "big")
    peers[0].write(frames.frame(frames.GOAWAY, 0, 0, untaken))
    await asyncio.wait_for(second.wait(), 20)
    await asyncio.wait_for(channel.call(STREAM, b"", {}), 20)
    assert len(peers) == 2
    await channel.close()
    await eventually(lambda: gone == 2)
    server.close()


def test_plain_connections_have_no_context() -> None:
    assert context(None) is None
    assert isinstance(context(TritonTls()), ssl.SSLContext)
