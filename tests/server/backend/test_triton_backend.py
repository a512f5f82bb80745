from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_triton import (
    Behaviour,
    FakeTriton,
    Send,
    answer,
    empty_final,
    failure,
    fake_triton,
    of_sequence,
)
from token_batches import next_batch

from server.backend.base import GenerateRequest, Guide, Tokens, TokenStream
from server.backend.http2 import frames
from server.backend.http2.limits import Limits
from server.backend.triton import TritonBackend, endpoints, error_of_message
from server.backend.triton.answer import Answer
from server.config import ServedModel, ServerConfig
from server.errors import (
    ContextLengthError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
)
from triton_repo.launch.ports import free_ports

MODEL = "tensorrt_llm"
PLAIN = GenerateRequest(
    model=MODEL, request_id="r2", input_ids=[1], max_tokens=40, end_id=-1, seed=0
)


def backend_for(*addresses: str, limits: Limits | None = None, **values: Any) -> TritonBackend:
    model = ServedModel(name="m", tokenizer_dir=Path(), max_seq_len=100)
    config = ServerConfig(triton_addresses=addresses, models=(model,), **values)
    return TritonBackend(config, limits)


@asynccontextmanager
async def connected(
    behaviour: Behaviour, **values: Any
) -> AsyncIterator[tuple[FakeTriton, TritonBackend]]:
    async with fake_triton(behaviour) as triton:
        backend = backend_for(triton.address, **values)
        await backend.ready(MODEL)
        try:
            yield triton, backend
        finally:
            await backend.close()


async def drain(stream: TokenStream) -> list[Tokens]:
    found: list[Tokens] = []
    while batch := await asyncio.wait_for(next_batch(stream), 20):
        found += batch
    return found


async def until(condition: Any, seconds: float = 20) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), seconds)


async def hang(_: Any, send: Send) -> None:
    await asyncio.Event().wait()


async def one_token(_: Any, send: Send) -> None:
    await send(answer([3]))
    await asyncio.Event().wait()


async def one_token_and_the_end(_: Any, send: Send) -> None:
    await send(answer([3], final=True))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Exceeds maximum queue size", OverloadedError),
        ("prompt length (900) exceeds max input/seq length", ContextLengthError),
        ("Stub process 'tensorrt_llm_0_0' is not healthy.", NotReadyError),
        ("Request for unknown model: 'tensorrt_llm' has no available versions", NotReadyError),
        ("input 'runtime_top_p_decay' can't be honoured by this engine", InvalidRequestError),
        ("CUDA error: an illegal memory access", InternalError),
    ],
)
def test_tritons_words_become_our_errors(message: str, kind: type[RequestError]) -> None:
    error = error_of_message(message)
    assert type(error) is kind
    assert message in str(error)


async def test_tokens_come_as_triton_sends_them() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))
        await send(answer([]))
        for token in range(4, 9):
            await send(answer([token]))
        await send(answer([1, 2]))
        await send(empty_final())

    async with connected(behave) as (_, backend):
        received = await drain(backend.generate(PLAIN))
    assert [token for tokens in received for token in tokens.ids] == [3, 4, 5, 6, 7, 8, 1, 2]
    assert [tokens.final for tokens in received] == [False] * (len(received) - 1) + [True]


async def test_a_slow_reader_finds_all_that_has_come_at_once() -> None:
    async def behave(_: Any, send: Send) -> None:
        for token in range(20):
            await send(answer([token]))
        await send(empty_final())

    async with connected(behave) as (_, backend):
        stream = backend.generate(PLAIN)
        first = await next_batch(stream)
        await until(lambda: stream.over or stream._call.ended)
        rest = await next_batch(stream)
        assert [list(tokens.ids) for tokens in first + rest] == [[n] for n in range(20)] + [[]]
        assert await next_batch(stream) == []


async def test_what_comes_while_one_waits_is_taken_at_once_and_not_by_a_task() -> None:
    goes_on = asyncio.Event()

    async def behave(_: Any, send: Send) -> None:
        await send(answer([0]))
        await goes_on.wait()
        for token in range(1, 9):
            await send(answer([token]))
        await send(empty_final())

    taken: list[int] = []
    tasks: list[object] = []

    def take(batch: list[Tokens]) -> bool:
        taken.extend(token for tokens in batch for token in tokens.ids)
        tasks.append(asyncio.current_task())
        goes_on.set()
        return True

    async with connected(behave) as (_, backend):
        assert not await asyncio.wait_for(backend.generate(PLAIN).run(take), 20)
    assert taken == list(range(9))
    assert tasks[-1] is None


async def test_who_wants_no_more_for_now_is_given_the_rest_later() -> None:
    async def behave(_: Any, send: Send) -> None:
        for token in range(20):
            await send(answer([token]))
        await send(empty_final())

    taken: list[int] = []

    def take(batch: list[Tokens]) -> bool:
        taken.extend(token for tokens in batch for token in tokens.ids)
        return False

    async with connected(behave) as (_, backend):
        stream = backend.generate(PLAIN)
        while await asyncio.wait_for(stream.run(take), 20):
            await asyncio.sleep(0)
    assert taken == list(range(20))


async def test_what_fails_with_the_tokens_fails_there_and_the_connection_serves_on() -> None:
    async def behave(_: Any, send: Send) -> None:
        await asyncio.sleep(0.05)
        await send(answer([3]))
        await asyncio.sleep(60)

    def take(_: list[Tokens]) -> bool:
        raise LookupError("a fault of ours")

    async with connected(behave) as (triton, backend):
        stream = backend.generate(PLAIN)
        with pytest.raises(LookupError, match="ours"):
            await asyncio.wait_for(stream.run(take), 20)
        stream.cancel()
        again = replace(PLAIN, request_id="again")
        assert list((await next_batch(backend.generate(again)))[0].ids) == [3]
        await until(lambda: triton.cancelled)
        assert triton.cancelled == ["r2"]


async def test_what_fails_with_the_last_tokens_leaves_its_neighbours_alone() -> None:
    goes_on = asyncio.Event()

    async def behave(asked: Any, send: Send) -> None:
        await send(answer([1]))
        if asked.id == "well":
            await goes_on.wait()
        await asyncio.sleep(0.05)
        await send(answer([2], final=True))

    def fail_at_last(batch: list[Tokens]) -> bool:
        if batch[-1].final:
            raise LookupError("a fault of ours")
        return True

    async with connected(behave) as (_, backend):
        well = asyncio.create_task(drain(backend.generate(replace(PLAIN, request_id="well"))))
        with pytest.raises(LookupError, match="ours"):
            await asyncio.wait_for(backend.generate(PLAIN).run(fail_at_last), 20)
        goes_on.set()
        found = await asyncio.wait_for(well, 20)
    assert [list(tokens.ids) for tokens in found] == [[1], [2]]


async def test_an_error_comes_after_the_tokens_of_the_same_reading() -> None:
    """However they are read: all at once, or as they come."""

    async def behave(_: Any, send: Send) -> None:
        await asyncio.sleep(0.05)
        await send(answer([3]))
        await send(failure("it broke"))

    order: list[object] = []

    def take(batch: list[Tokens]) -> bool:
        order.extend(token for tokens in batch for token in tokens.ids)
        return True

    async with connected(behave) as (_, backend):
        try:
            await asyncio.wait_for(backend.generate(PLAIN).run(take), 20)
        except InternalError as error:
            order.append(type(error))
    assert order == [3, InternalError]


async def test_cancelling_cancels_the_request_in_triton_at_once() -> None:
    async with connected(one_token) as (triton, backend):
        stream = backend.generate(PLAIN)
        await next_batch(stream)
        waiting = asyncio.create_task(next_batch(stream))
        await asyncio.sleep(0)
        stream.cancel()
        stream.cancel()
        assert await waiting == []
        await asyncio.wait_for(triton.cancellation.wait(), 20)
        assert triton.cancelled == ["r2"]


async def test_a_request_is_cancelled_before_its_first_token() -> None:
    async with connected(hang) as (triton, backend):
        stream = backend.generate(PLAIN)
        task = asyncio.create_task(next_batch(stream))
        await until(lambda: triton.requests)
        task.cancel()
        stream.cancel()
        await asyncio.wait_for(triton.cancellation.wait(), 20)


class Hearing:
    """A server that says no more than hello, with these settings, and keeps what each connection
    brings; all but the first are greeted only once it `greets`."""

    def __init__(self, settings: dict[int, int]) -> None:
        self.greeting = frames.settings(settings)
        self.greets = asyncio.Event()
        self.heard: list[bytearray] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(heard := bytearray())
        if len(self.heard) > 1:
            await self.greets.wait()
        writer.write(self.greeting)
        while data := await reader.read(1 << 16):
            heard += data
        writer.close()


@asynccontextmanager
async def one_request_under_way() -> AsyncIterator[tuple[Hearing, TritonBackend]]:
    """The only connection has room for one, and a second connection isn't greeted yet."""
    triton = Hearing({frames.MAX_CONCURRENT_STREAMS: 1})
    async with await asyncio.start_server(triton.serve, "127.0.0.1", 0) as server:
        backend = backend_for(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        first = asyncio.create_task(drain(backend.generate(replace(PLAIN, request_id="first"))))
        await until(lambda: triton.heard and b"first" in triton.heard[0])
        try:
            yield triton, backend
        finally:
            triton.greets.set()
            await backend.close()
            await asyncio.wait([first])


async def test_who_gives_up_waiting_for_a_connection_has_sent_nothing() -> None:
    async with one_request_under_way() as (triton, backend):
        streams = [backend.generate(replace(PLAIN, request_id=id_)) for id_ in ("gone", "stays")]
        gone, _ = tasks = [asyncio.create_task(drain(stream)) for stream in streams]
        await until(lambda: len(triton.heard) == 2)
        streams[0].cancel()
        assert await asyncio.wait_for(gone, 20) == []
        triton.greets.set()
        await until(lambda: b"stays" in triton.heard[1])
        assert b"gone" not in b"".join(triton.heard)
        await backend.close()
        await asyncio.wait(tasks)


async def test_a_request_that_waits_for_room_is_not_sent_when_closing_makes_room() -> None:
    async with one_request_under_way() as (triton, backend):
        waiting = asyncio.create_task(drain(backend.generate(replace(PLAIN, request_id="second"))))
        await until(lambda: len(triton.heard) == 2)
        await backend.close()
        assert await asyncio.wait_for(waiting, 20) == []
        await until(lambda: frames.goaway(frames.NO_ERROR) in triton.heard[0])
        assert b"second" not in triton.heard[0]


@pytest.mark.parametrize(
    ("last", "asked"),
    [
        (answer([3], final=True), {}),
        (answer([3]), {"max_tokens": 1}),
        (answer([3]), {"end_id": 3}),
        (answer([3]), {"stop_ids": (3,)}),
    ],
    ids=["final", "all tokens", "end id", "stop id"],
)
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
async def test_a_stream_that_ends_by_itself_is_never_cancelled(
    last: Any, asked: dict[str, Any], read: bool
) -> None:
    """Triton 2.51 keeps a model from being unloaded when a cancel meets its stream's end."""
    goes_on = asyncio.Event()

    async def behave(_: Any, send: Send) -> None:
        await send(last)
        await goes_on.wait()

    values = {"model": MODEL, "request_id": "r", "input_ids": [1], "max_tokens": 9, "end_id": -1}
    async with connected(behave) as (triton, backend):
        stream = backend.generate(GenerateRequest(**{**values, "seed": 0, **asked}))
        if read:
            await next_batch(stream)
            waiting = asyncio.create_task(next_batch(stream))
            await asyncio.sleep(0)
        else:
            await until(lambda: stream._call.messages)
        stream.cancel()
        if read:
            assert await asyncio.wait_for(waiting, 20) == []
        await asyncio.sleep(0.1)
        goes_on.set()
        await until(lambda: triton.ended)
        assert triton.cancelled == []


async def test_several_sequences_that_have_all_their_tokens_are_not_cancelled_either() -> None:
    goes_on = asyncio.Event()

    async def behave(_: Any, send: Send) -> None:
        for number, token in ((0, 3), (0, 9), (1, 3), (1, 9)):
            await send(of_sequence(answer([token]), number))
        await goes_on.wait()

    async with connected(behave) as (triton, backend):
        for limits in ({"max_tokens": 2}, {"end_id": 9}):
            stream = backend.generate(replace(PLAIN, sequences=2, **limits))
            found: list[Tokens] = []
            while len(found) < 4:
                found += await next_batch(stream)
            stream.cancel()
            await asyncio.sleep(0.1)
            assert triton.cancelled == []
        goes_on.set()


async def test_a_last_response_that_lacks_what_was_asked_for_says_so() -> None:
    async with connected(one_token_and_the_end) as (_, backend):
        with pytest.raises(InternalError, match="no logits of the prompt"):
            await drain(backend.generate(replace(PLAIN, prompt_log_probs=1)))


async def test_what_takes_long_to_read_is_read_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: set[int] = set()
    read = Answer.read

    def noted(self: Answer, found: Any, out: Any) -> Any:
        threads.add(threading.get_ident())
        return read(self, found, out)

    async def behave(_: Any, send: Send) -> None:
        await send(answer(range(20_000), final=True))

    monkeypatch.setattr(Answer, "read", noted)
    async with connected(behave) as (_, backend):
        [tokens] = await drain(backend.generate(replace(PLAIN, max_tokens=20_000)))
    assert len(tokens.ids) == 20_000
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("first", ["the stream", "its task"])
async def test_who_leaves_while_an_answer_is_read_beside_the_loop_reads_nothing_more(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on, with the same Answer: what has come meanwhile is left unread."""
    threads: list[int] = []
    entered, leaves = threading.Event(), threading.Event()
    read = Answer.read

    def slow(self: Answer, found: Any, out: Any) -> Any:
        threads.append(threading.get_ident())
        entered.set()
        assert leaves.wait(20)
        return read(self, found, out)

    async def behave(_: Any, send: Send) -> None:
        await send(answer(range(20_000)))
        await asyncio.to_thread(entered.wait, 20)
        await send(answer([1], final=True))
        await asyncio.Event().wait()

    monkeypatch.setattr(Answer, "read", slow)
    async with connected(behave) as (triton, backend):
        stream = backend.generate(replace(PLAIN, max_tokens=99_999))
        task = asyncio.create_task(drain(stream))
        try:
            await until(lambda: entered.is_set() and stream._call.messages)
            if first == "its task":
                task.cancel()
                await asyncio.wait([task])
            stream.cancel()
            await asyncio.wait_for(triton.cancellation.wait(), 20)
        finally:
            leaves.set()
        await asyncio.wait([task])
        assert task.cancelled() or task.result() == []
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_an_error_message_ends_the_answer_after_its_tokens() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))
        await send(failure("Exceeds maximum queue size"))

    async with connected(behave) as (triton, backend):
        stream = backend.generate(PLAIN)
        await until(lambda: triton.ended)
        assert (await next_batch(stream))[0].ids[0] == 3
        with pytest.raises(OverloadedError):
            await next_batch(stream)


async def test_a_guide_that_the_engine_refuses_is_named_as_the_client_does() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(failure("guided_decoding_guide is not a grammar that can be followed; found ("))

    async with connected(behave) as (_, backend):
        guide = Guide(kind="regex", text="(", param="guided_regex")
        with pytest.raises(InvalidRequestError, match="can be followed") as refused:
            await drain(backend.generate(replace(PLAIN, guide=guide)))
        assert refused.value.param == "guided_regex"


async def test_a_stream_that_ends_without_a_final_response_is_an_error() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))

    async with connected(behave) as (_, backend):
        with pytest.raises(InternalError):
            await drain(backend.generate(PLAIN))


async def test_a_triton_that_goes_silent_is_given_up_and_a_slow_one_is_not() -> None:
    async def behave(request: Any, send: Send) -> None:
        for _ in range(8):
            await send(answer([3]))
            await asyncio.sleep(0.3)
        if request.id == "slow":
            await send(empty_final())
        await asyncio.Event().wait()

    async with connected(behave, stall_seconds=2.0) as (triton, backend):
        slow = GenerateRequest(
            model=MODEL, request_id="slow", input_ids=[1], max_tokens=40, end_id=-1, seed=0
        )
        streams = backend.generate(slow), backend.generate(PLAIN)
        assert len(await drain(streams[0])) == 9
        with pytest.raises(NotReadyError, match="stopped answering"):
            await drain(streams[1])
        await until(lambda: "r2" in triton.cancelled)


async def test_a_triton_that_is_away_is_told_at_once_and_found_again() -> None:
    [port] = free_ports("127.0.0.1", 1)
    backend = backend_for(f"127.0.0.1:{port}")
    try:
        for _ in range(3):
            with pytest.raises(NotReadyError):
                await drain(backend.generate(PLAIN))
        assert not await backend.ready(MODEL)
        async with fake_triton(one_token_and_the_end, port):
            while not await backend.ready(MODEL):
                await asyncio.sleep(0.05)
            assert [list(t.ids) for t in await drain(backend.generate(PLAIN))] == [[3]]
    finally:
        await backend.close()


async def test_a_triton_that_dies_in_mid_answer_is_an_error_not_a_hang() -> None:
    async with fake_triton(one_token) as triton:
        backend = backend_for(triton.address)
        stream = backend.generate(PLAIN)
        await next_batch(stream)
    with pytest.raises(NotReadyError):
        await asyncio.wait_for(next_batch(stream), 20)
    await backend.close()


async def test_a_frozen_triton_is_given_up_and_one_that_is_only_busy_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after SIGSTOP: the system still takes what is sent, and nothing answers. A busy one, that
    loads a model, tells nothing either, but its gRPC threads live."""
    for name in ("_LOOK_SECONDS", "_PATIENCE_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(endpoints, name, 0.05)

    async def freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.settings({}))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(freeze, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        backend = backend_for(f"127.0.0.1:{port}", limits=Limits(sign_seconds=0.1))
        with pytest.raises(NotReadyError, match="not available"):
            await drain(backend.generate(PLAIN))
        await backend.close()

    asked = 0

    async def busy(self: FakeTriton, request: Any, context: Any) -> Any:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeTriton, "ModelReady", busy)
    async with fake_triton(hang) as triton:
        backend = backend_for(triton.address, limits=Limits(sign_seconds=0.5))
        stream = backend.generate(PLAIN)
        drained = asyncio.create_task(drain(stream))
        await until(lambda: asked > 20)
        assert not drained.done()
        stream.cancel()
        await asyncio.wait([drained])
        await backend.close()


def test_a_frozen_triton_is_found_within_5_seconds() -> None:
    limits = Limits()
    look, patience = endpoints._LOOK_SECONDS, endpoints._PATIENCE_SECONDS
    assert look + patience + limits.sign_seconds < 5
    assert limits.connect_seconds < 5


async def test_readiness_is_the_models_own() -> None:
    async with connected(hang) as (triton, backend):
        assert await backend.ready(MODEL)
        assert not await backend.ready("another")
        triton.ready = False
        assert not await backend.ready(MODEL)


async def test_requests_go_to_the_triton_with_the_fewest() -> None:
    async with fake_triton(one_token) as one, fake_triton(one_token) as two:
        backend = backend_for(one.address, two.address)
        try:
            streams = [backend.generate(PLAIN) for _ in range(8)]
            for stream in streams:
                await next_batch(stream)
            assert (len(one.requests), len(two.requests)) == (4, 4)
            for stream in streams[::2]:
                stream.cancel()
            for _ in range(4):
                await next_batch(backend.generate(PLAIN))
            assert (len(one.requests), len(two.requests)) in {(8, 4), (4, 8), (6, 6)}
        finally:
            await backend.close()


async def test_a_triton_that_goes_takes_only_its_own_requests_with_it() -> None:
    async with fake_triton(one_token_and_the_end) as well:
        async with fake_triton(one_token) as going:
            backend = backend_for(going.address, well.address)
            await backend.ready(MODEL)
            streams = [backend.generate(PLAIN) for _ in range(6)]
            for stream in streams:
                await next_batch(stream)
            lost = len(going.requests)
            assert lost
        failed = 0
        for stream in streams:
            try:
                await drain(stream)
            except NotReadyError:
                failed += 1
        assert failed == lost
        for _ in range(6):
            assert [list(t.ids) for t in await drain(backend.generate(PLAIN))] == [[3]]
        await backend.close()


async def test_a_model_that_one_triton_lacks_is_asked_of_another() -> None:
    async def lacks(_: Any, send: Send) -> None:
        await send(failure("Request for unknown model: 'tensorrt_llm' has no available versions"))

    async with fake_triton(lacks) as one, fake_triton(one_token_and_the_end) as two:
        backend = backend_for(one.address, two.address)
        try:
            for _ in range(4):
                assert [list(t.ids) for t in await drain(backend.generate(PLAIN))] == [[3]]
        finally:
            await backend.close()
    async with connected(lacks) as (triton, backend):
        with pytest.raises(NotReadyError, match="unknown model"):
            await drain(backend.generate(PLAIN))
        assert len(triton.requests) == 1


async def test_an_encoders_embedding_comes_as_numbers() -> None:
    async with connected(hang) as (triton, backend):
        triton.embedding = (0.25, -1.5, 3.0)
        trace = {"traceparent": "00-ab-cd-01", "triton_grpc_error": "true"}
        assert list(await backend.embed("encoder", [5, 6], trace=trace)) == [0.25, -1.5, 3.0]
        assert triton.metadata[0]["traceparent"] == "00-ab-cd-01"
        assert "triton_grpc_error" not in triton.metadata[0]
        sent = triton.requests[0]
        assert sent.model_name == "encoder"
        assert [(t.name, list(t.shape)) for t in sent.inputs] == [
            ("input_ids", [1, 2]),
            ("input_lengths", [1, 1]),
        ]


async def test_an_encoder_whose_connection_was_ending_is_asked_again() -> None:
    come = 0

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal come
        come += 1
        writer.write(frames.settings({}))
        for part in (b"tensor", b"input_ids"):  # of the question
            await reader.readuntil(part)
        writer.write(frames.goaway(frames.NO_ERROR))
        writer.close()

    server = await asyncio.start_server(leave, "127.0.0.1", 0)
    backend = backend_for(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(NotReadyError):
        await asyncio.wait_for(backend.embed("tensor", [1], trace={}), 20)
    assert come == 2
    await backend.close()
    server.close()


async def test_trace_headers_reach_triton_and_nothing_else_does() -> None:
    trace = {"traceparent": "00-ab-cd-01", "triton_grpc_error": "true", "tracestate": "a\nb"}
    asked = GenerateRequest(
        model=MODEL, request_id="r", input_ids=[1], max_tokens=9, end_id=-1, seed=0, trace=trace
    )
    async with connected(one_token_and_the_end) as (triton, backend):
        await drain(backend.generate(asked))
        assert triton.metadata[0]["traceparent"] == "00-ab-cd-01"
        assert not {"triton_grpc_error", "tracestate"} & triton.metadata[0].keys()


async def test_what_cannot_be_asked_is_told_by_the_stream() -> None:
    asked = GenerateRequest(
        model=MODEL, request_id="r", input_ids=[1], max_tokens=9, end_id=-1, seed=0,
        logit_bias={5: 1.0},
    )  # fmt: skip
    async with connected(hang) as (triton, backend):
        with pytest.raises(InvalidRequestError, match="logit_bias"):
            await next_batch(backend.generate(asked))
        assert not triton.requests
