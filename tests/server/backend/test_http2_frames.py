"""Promise: whatever a peer sends, calls end with an answer or a clear error; none hangs."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_peer import HEAD, OK, SETTINGS, Peer, message

from server.backend.http2 import frames
from server.backend.http2.call import Call
from server.backend.http2.outgoing import Outgoing
from server.backend.http2.status import CallError, Status

DATA, HEADERS = frames.DATA, frames.HEADERS
PRIORITY = bytes(5)


async def test_an_answer_comes_whole_wherever_its_bytes_are_cut() -> None:
    contents = [b"", b"a", b"b" * 300, b"c" * 40_000, b"d"]
    rng = random.Random(1)
    for _ in range(150):
        peer = Peer()
        call = peer.open()
        stream = b"".join(map(message, contents))
        data = peer.headers(1, *HEAD)
        while stream:
            size = rng.choice([1, 4, 5, 6, 90, 16_000])
            data += _data_frame(rng, stream[:size])
            stream = stream[size:]
        data += _split_headers(rng, peer)
        got: list[bytes] = []
        while data:
            size = rng.choice([1, 3, 9, 10, 1000, 1 << 16])
            peer.send(data[:size])
            got += call.take()
            data = data[size:]
        assert got == contents
        assert (call.ended, call.error) == (True, None)


async def test_a_listener_is_called_once_for_all_that_one_reading_brought() -> None:
    peer = Peer()
    one, two = peer.open(), peer.open()
    heard: list[tuple[int, list[bytes]]] = []

    def listen(call: Call) -> bool:
        heard.append((call.id, call.take()))
        return True

    waiting = [call.wait(lambda call=call: listen(call)) for call in (one, two)]  # type: ignore[misc]
    head = peer.headers(1, *HEAD) + peer.headers(3, *HEAD)
    pieces = [(1, b"a"), (3, b"b"), (1, b"c"), (1, b"d")]
    peer.send(head + b"".join(frames.frame(DATA, 0, n, message(text)) for n, text in pieces))
    assert heard == [(1, [b"a", b"c", b"d"]), (3, [b"b"])]
    peer.send(frames.frame(DATA, 0, 3, message(b"e")))
    assert heard[2:] == [(3, [b"e"])]
    assert not any(each.done() for each in waiting)


def _data_frame(rng: random.Random, content: bytes) -> bytes:
    padding = rng.choice([None, 0, 1, 200])
    if padding is None:
        return frames.frame(DATA, 0, 1, content)
    return frames.frame(DATA, frames.PADDED, 1, bytes([padding]) + content + bytes(padding))


def _split_headers(rng: random.Random, peer: Peer) -> bytes:
    """Trailers with padding and priority, in several frames."""
    block = peer.block(OK)
    cuts = sorted(rng.randrange(len(block) + 1) for _ in range(rng.randrange(3)))
    parts = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
    flags = frames.END_STREAM | frames.PADDED | frames.PRIORITISED
    first = bytes([3]) + PRIORITY + parts[0] + bytes(3)
    out = frames.frame(HEADERS, flags | (frames.END_HEADERS if len(parts) == 1 else 0), 1, first)
    for number, part in enumerate(parts[1:], 2):
        last = frames.END_HEADERS if number == len(parts) else 0
        out += frames.frame(frames.CONTINUATION, last, 1, part)
    return out


NOT_FOUND = (("grpc-status", "5"), ("grpc-message", "k%C3%A4se"))

BROKEN: dict[str, bytes] = {
    "a frame too large": (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01"),
    "data on no stream": frames.frame(DATA, 0, 0, b"x"),
    "data on a stream never opened": frames.frame(DATA, 0, 7, b"x"),
    "data on a server's stream": frames.frame(DATA, 0, 2, b"x"),
    "padding longer than the frame": frames.frame(DATA, frames.PADDED, 1, b"\x05abc"),
    "padded, without a length": frames.frame(DATA, frames.PADDED, 1, b""),
    "headers on no stream": frames.frame(HEADERS, frames.END_HEADERS, 0, b""),
    "headers that can't be decoded": frames.frame(HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff"),
    "headers interrupted": frames.frame(HEADERS, 0, 1, b"")
    + frames.frame(frames.PING, 0, 0, bytes(8)),
    "headers without an end": frames.frame(HEADERS, 0, 1, b"")
    + frames.frame(frames.CONTINUATION, 0, 1, bytes(16_000)) * 5,
    "a continuation of nothing": frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, b""),
    "settings of a broken length": frames.frame(frames.SETTINGS, 0, 0, b"12345"),
    "settings on a stream": frames.frame(frames.SETTINGS, 0, 1, b""),
    "an acknowledgement with settings": frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
    "a window beyond the largest": frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 31}),
    "a frame size below the least": frames.settings({frames.MAX_FRAME_SIZE: 100}),
    "a short ping": frames.frame(frames.PING, 0, 0, b"1234"),
    "a short goaway": frames.frame(frames.GOAWAY, 0, 0, b"1234"),
    "a short reset": frames.frame(frames.RST_STREAM, 0, 1, b"1"),
    "a push": frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, bytes(8)),
    "a window update of nothing": frames.window_update(0, 0),
    "a window that overflows": frames.window_update(0, (1 << 31) - 1),
    "more than the stream's window": frames.frame(DATA, 0, 1, message(bytes(16_000))) * 5,
}  # fmt: skip


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_a_broken_frame_ends_the_connection_and_its_calls_with_a_clear_error(
    data: bytes,
) -> None:
    peer = Peer()
    call, other = peer.open(), peer.open()
    peer.sent()
    peer.send(peer.headers(1, *HEAD) + data)
    await asyncio.wait_for(call.wait(), 5)
    assert peer.connection.closed
    assert peer.transport.closed
    for each in (call, other):
        assert each.error is not None
        assert each.error.status == Status.UNAVAILABLE
        assert "the peer broke HTTP/2" in each.error.message
    kind, _, stream, payload = peer.sent()[-1]
    assert (kind, stream) == (frames.GOAWAY, 0)
    assert int.from_bytes(payload[4:8], "big") != frames.NO_ERROR


async def test_a_port_that_speaks_http1_is_told_as_such() -> None:
    peer = Peer(greet=False)
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert peer.connection.closed
    assert "HTTP/1" in peer.connection.why


async def test_a_peer_must_begin_with_its_settings() -> None:
    peer = Peer(greet=False)
    peer.send(frames.frame(frames.PING, 0, 0, bytes(8)))
    assert peer.connection.closed


CALL_ERRORS: dict[str, tuple[Any, Status]] = {
    "another http status": (lambda p: p.headers(1, (":status", "503")), Status.UNAVAILABLE),
    "no status": (lambda p: p.headers(1, ("a", "b")), Status.UNKNOWN),
    "not grpc": (
        lambda p: p.headers(1, (":status", "200"), ("content-type", "text/html")),
        Status.UNKNOWN,
    ),
    "compressed": (
        lambda p: p.headers(1, *HEAD) + frames.frame(DATA, 0, 1, b"\1" + bytes(4)),
        Status.INTERNAL,
    ),
    "a message too large": (
        lambda p: p.headers(1, *HEAD) + frames.frame(DATA, 0, 1, b"\0\x7f\xff\xff\xff"),
        Status.INTERNAL,
    ),
    "an end in mid message": (
        lambda p: p.headers(1, *HEAD)
        + frames.frame(DATA, 0, 1, message(b"abc")[:-1])
        + p.headers(1, *OK, last=True),
        Status.INTERNAL,
    ),
    "an end without trailers": (
        lambda p: p.headers(1, *HEAD) + frames.frame(DATA, frames.END_STREAM, 1, message(b"abc")),
        Status.INTERNAL,
    ),
    "trailers without a status": (
        lambda p: p.headers(1, *HEAD) + p.headers(1, ("a", "b"), last=True),
        Status.UNKNOWN,
    ),
    "headers in the middle": (
        lambda p: p.headers(1, *HEAD) + p.headers(1, ("a", "b")),
        Status.INTERNAL,
    ),
    "a window of nothing": (lambda p: frames.window_update(1, 0), Status.INTERNAL),
    "a reset": (lambda p: frames.rst_stream(1, frames.CANCEL), Status.CANCELLED),
    "trailers alone": (
        lambda p: p.headers(1, *HEAD, *NOT_FOUND, last=True),
        Status.NOT_FOUND,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "status"), CALL_ERRORS.values(), ids=CALL_ERRORS)
async def test_a_broken_answer_ends_its_call_alone(make: Any, status: Status) -> None:
    peer = Peer()
    call, other = peer.open(), peer.open()
    peer.send(make(peer))
    assert call.error is not None
    assert call.error.status == status
    assert not call.error.untaken
    peer.send(peer.answer(3, b"fine"))
    assert other.take() == [b"fine"]
    assert other.error is None
    if status == Status.NOT_FOUND:
        assert call.error.message == "käse"


async def test_a_first_header_of_the_1xx_kind_is_no_answer() -> None:
    peer = Peer()
    call = peer.open()
    peer.send(peer.headers(1, (":status", "103")) + peer.answer(1, b"fine"))
    assert call.take() == [b"fine"]
    assert call.error is None


async def test_a_ping_is_answered_and_an_unknown_frame_is_nothing() -> None:
    peer = Peer()
    peer.send(frames.frame(frames.PING, 0, 0, b"12345678") + frames.frame(0xFA, 7, 9, b"what"))
    assert peer.sent() == [(frames.PING, frames.ACK, 0, b"12345678")]
    assert peer.connection.usable


async def test_goaway_lets_calls_end_and_tells_which_were_never_taken() -> None:
    peer = Peer()
    calls = [peer.open() for _ in range(3)]
    peer.send(frames.frame(frames.GOAWAY, 0, 0, (3).to_bytes(4, "big") + bytes(4) + b"max_age"))
    assert not peer.connection.has_room
    assert [call.ended for call in calls] == [False, False, True]
    assert calls[2].error is not None
    assert calls[2].error.untaken
    assert "max_age" in calls[2].error.message
    peer.send(peer.answer(1, b"one"))
    assert not peer.connection.closed
    peer.send(peer.answer(3, b"two"))
    assert [call.take() for call in calls] == [[b"one"], [b"two"], []]
    assert peer.connection.closed


async def test_a_refused_stream_was_never_taken_but_a_lost_connection_may_have_been() -> None:
    peer = Peer()
    refused, lost = peer.open(), peer.open()
    peer.send(frames.rst_stream(1, frames.REFUSED_STREAM))
    peer.connection.connection_lost(ConnectionResetError("reset"))
    assert isinstance(refused.error, CallError)
    assert isinstance(lost.error, CallError)
    assert (refused.error.untaken, lost.error.untaken) == (True, False)


async def test_an_unread_call_stops_at_its_window_and_goes_on_when_it_is_read() -> None:
    peer = Peer()
    call = peer.open()
    peer.send(peer.headers(1, *HEAD))
    peer.sent()
    content = bytes(1019)
    for _ in range(60):
        peer.send(frames.frame(DATA, 0, 1, message(content)))
    assert peer.sent() == [], "nothing more is allowed while nobody reads"
    assert len(call.take()) == 60
    [(kind, _, stream, payload)] = peer.sent()
    assert (kind, stream) == (frames.WINDOW_UPDATE, 1)
    assert int.from_bytes(payload, "big") == 60 * 1024


async def test_a_message_larger_than_the_window_gets_room_when_all_before_it_is_read() -> None:
    peer = Peer()
    call = peer.open()
    peer.send(peer.headers(1, *HEAD) + frames.frame(DATA, 0, 1, message(b"first")))
    peer.sent()
    large = message(bytes(1 << 20))
    come = 40_000
    for at in range(0, come, 10_000):
        peer.send(frames.frame(DATA, 0, 1, large[at : at + 10_000]))
    assert peer.sent() == []
    assert call.take() == [b"first"]
    granted = sum(int.from_bytes(payload, "big") for _, _, stream, payload in peer.sent() if stream)
    assert granted + frames.DEFAULT_WINDOW_BYTES - 10 == len(large)
    for at in range(come, len(large), 10_000):
        peer.send(frames.frame(DATA, 0, 1, large[at : at + 10_000]))
    assert call.take() == [bytes(1 << 20)]
    assert call.receive_window == frames.DEFAULT_WINDOW_BYTES


async def test_requests_keep_to_the_peers_windows_and_frame_size() -> None:
    peer = Peer()
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 20_000}))
    body = random.Random(2).randbytes(100_000)
    peer.open(body)
    sent = bytearray()

    def collect() -> list[int]:
        found = [(size, flags) for kind, flags, _, size in peer.sent() if kind == DATA]
        sent.extend(b"".join(payload for payload, _ in found))
        return [len(payload) for payload, _ in found]

    assert collect() == [16_384, 3_616]
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 30_000}))
    assert collect() == [10_000]
    peer.send(frames.window_update(1, 60_000))
    assert sum(collect()) == 65_535 - 30_000, "the connection's window is the bound now"
    peer.send(frames.window_update(0, 60_000))
    collect()
    peer.send(frames.window_update(1, 60_000))
    collect()
    assert bytes(sent) == message(body)


async def test_a_message_that_has_left_is_not_kept() -> None:
    peer = Peer()
    call = peer.open(bytes(30_000))
    assert not call.ended
    assert call.outgoing.obj == b""


async def test_headers_are_read_with_whatever_table_the_peer_has_room_for() -> None:
    for size in (0, 100, 4096, 1 << 16):
        peer = Peer(greet=False)
        peer.send(frames.settings({frames.HEADER_TABLE_SIZE: size}))
        peer.sent()
        decoder = hpack.Decoder()
        decoder.max_allowed_table_size = size
        for _ in range(2):
            peer.open()
        blocks = [payload for kind, _, _, payload in peer.sent() if kind == HEADERS]
        assert [decoder.decode(block) for block in blocks] == [[(":method", "POST")]] * 2


async def test_a_silent_peer_is_asked_for_a_sign_and_then_given_up() -> None:
    silent = Peer(keepalive_seconds=0.05, sign_seconds=0.05)
    call = silent.open()
    await asyncio.wait_for(call.wait(), 20)
    assert call.error is not None
    assert "no sign" in call.error.message
    assert frames.PING in [kind for kind, *_ in silent.sent()]


async def test_a_quiet_peer_that_lives_is_not_asked_more_often_than_servers_allow() -> None:
    peer = Peer(keepalive_seconds=0.02, sign_seconds=20)
    call = peer.open()
    pings = 0
    for _ in range(40):
        await asyncio.sleep(0.02)
        for kind, _, _, payload in peer.sent():
            if kind == frames.PING:
                pings += 1
                peer.send(frames.frame(frames.PING, frames.ACK, 0, payload))
    assert not call.ended
    assert pings <= 2


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_end_in_an_answer_or_an_error(data: st.DataObject) -> None:
    """Valid frames, some of their bytes changed, in pieces: no exception leaves the connection."""

    async def feed() -> None:
        peer = Peer(greet=False)
        stream = bytearray(SETTINGS)
        peer.send(SETTINGS)
        call = peer.open()
        stream = bytearray(
            frames.settings({frames.MAX_CONCURRENT_STREAMS: 5})
            + peer.answer(1, b"one", bytes(100))
            + frames.frame(frames.PING, 0, 0, bytes(8))
            + frames.frame(frames.GOAWAY, 0, 0, bytes(8))
        )
        places = st.integers(0, len(stream) - 1)
        for place in data.draw(st.lists(places, max_size=4)):
            stream[place] = data.draw(st.integers(0, 255))
        stream += data.draw(st.binary(max_size=40))
        cut = data.draw(places)
        peer.send(bytes(stream[:cut]))
        peer.send(bytes(stream[cut:]))
        peer.connection.connection_lost(None)
        assert call.ended
        assert peer.connection.closed

    asyncio.run(feed())


async def test_a_narrow_window_is_given_to_whoever_came_first_and_nobody_else_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer, asked = Peer(), 0
    calls = [peer.open(bytes(2000)) for _ in range(100)]
    flush = Outgoing.flush

    def counted(self: Outgoing, call: Call) -> None:
        nonlocal asked
        asked += 1
        flush(self, call)

    peer.sent()
    monkeypatch.setattr(Outgoing, "flush", counted)
    peer.send(frames.window_update(0, 5000))
    assert asked <= 4
    streams = [stream for kind, _, stream, _ in peer.sent() if kind == DATA]
    assert streams == sorted(streams)
    peer.send(frames.window_update(0, 1_000_000))
    assert len({stream for kind, _, stream, _ in peer.sent() if kind == DATA}) >= 60
    assert not any(call.outgoing for call in calls)
