from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fake_triton import Behaviour, FakeTriton, Send, answer, empty_final, failure, fake_triton

from server.backend.base import GenerateRequest, Tokens
from server.backend.triton import TritonBackend, error_of_message
from server.backend.triton_wire import INPUTS, decode, encode
from server.config import ServedModel, ServerConfig
from server.errors import (
    ContextLengthError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
)

# Upstream's config.pbtxt of `tensorrt_llm`: the inputs that the proxy may send, without the
# batch dimension.
UPSTREAM: dict[str, tuple[str, list[int]]] = {
    "input_ids": ("INT32", [-1]),
    "input_lengths": ("INT32", [1]),
    "request_output_len": ("INT32", [1]),
    "end_id": ("INT32", [1]),
    "pad_id": ("INT32", [1]),
    "stop_words_list": ("INT32", [2, -1]),
    "temperature": ("FP32", [1]),
    "runtime_top_k": ("INT32", [1]),
    "runtime_top_p": ("FP32", [1]),
    "repetition_penalty": ("FP32", [1]),
    "presence_penalty": ("FP32", [1]),
    "frequency_penalty": ("FP32", [1]),
    "seed": ("UINT64", [1]),
    "min_tokens": ("INT32", [1]),
    "return_log_probs": ("BOOL", [1]),
    "streaming": ("BOOL", [1]),
    "exclude_input_in_output": ("BOOL", [1]),
}
REQUIRED = {"input_lengths", "request_output_len"}
LAYOUTS = {"INT32": "i", "FP32": "f", "UINT64": "Q", "BOOL": "?"}

FULL = GenerateRequest(
    request_id="r1",
    input_ids=[5, 6, 7],
    max_tokens=9,
    end_id=2,
    stop_ids=(11, 12),
    temperature=0.5,
    top_p=0.25,
    top_k=3,
    repetition_penalty=1.5,
    presence_penalty=-0.5,
    frequency_penalty=2.0,
    seed=2**64 - 1,
    min_tokens=4,
    log_probs=True,
)
PLAIN = GenerateRequest(request_id="r2", input_ids=[1], max_tokens=4, end_id=-1, seed=0)


def tensors(request: GenerateRequest) -> dict[str, tuple[str, list[int], list[Any]]]:
    infer = encode(request, "tensorrt_llm")
    decoded = {}
    for tensor, raw in zip(infer.inputs, infer.raw_input_contents, strict=True):
        layout = LAYOUTS[tensor.datatype]
        values = [value for (value,) in struct.iter_unpack(f"<{layout}", raw)]
        decoded[tensor.name] = (tensor.datatype, list(tensor.shape), values)
    return decoded


def backend_for(triton_address: str, **values: Any) -> TritonBackend:
    model = ServedModel(name="m", tokenizer_dir=Path(), max_seq_len=100)
    return TritonBackend(ServerConfig(triton_address=triton_address, model=model, **values))


@asynccontextmanager
async def connected(
    behaviour: Behaviour, **values: Any
) -> AsyncIterator[tuple[FakeTriton, TritonBackend]]:
    async with fake_triton(behaviour) as triton:
        backend = backend_for(triton.address, **values)
        try:
            yield triton, backend
        finally:
            await backend.close()


async def collect(backend: TritonBackend, request: GenerateRequest = PLAIN) -> list[Tokens]:
    return [tokens async for tokens in backend.generate(request)]


def test_every_input_is_upstreams_with_its_type_and_dims() -> None:
    assert {tensor.name: tensor.datatype for tensor in INPUTS} == {
        name: datatype for name, (datatype, _) in UPSTREAM.items()
    }
    for name, (datatype, shape, values) in tensors(FULL).items():
        upstream_type, dims = UPSTREAM[name]
        assert datatype == upstream_type
        assert shape[0] == 1, "the model batches"
        assert len(shape) == len(dims) + 1
        assert all(d in (-1, n) for d, n in zip(dims, shape[1:], strict=True))
        size = 1
        for n in shape:
            size *= n
        assert len(values) == size
    assert tensors(PLAIN).keys() >= REQUIRED


def test_every_field_of_a_request_reaches_triton() -> None:
    sent = {name: values for name, (_, _, values) in tensors(FULL).items()}
    assert sent == {
        "input_ids": [5, 6, 7],
        "input_lengths": [3],
        "request_output_len": [9],
        "end_id": [2],
        "pad_id": [2],
        "stop_words_list": [11, 12, 1, 2],
        "temperature": [0.5],
        "runtime_top_k": [3],
        "runtime_top_p": [0.25],
        "repetition_penalty": [1.5],
        "presence_penalty": [-0.5],
        "frequency_penalty": [2.0],
        "seed": [2**64 - 1],
        "min_tokens": [4],
        "return_log_probs": [True],
        "streaming": [True],
        "exclude_input_in_output": [True],
    }
    assert encode(FULL, "tensorrt_llm").id == "r1"
    assert len(fields(GenerateRequest)) == 14, "a new field needs a tensor and a line above"


def test_defaults_are_sent_explicitly_as_the_engines_own_differ() -> None:
    sent = {name: values for name, (_, _, values) in tensors(PLAIN).items()}
    assert sent["temperature"] == [1.0]
    assert sent["runtime_top_p"] == [1.0]
    assert sent["runtime_top_k"] == [0]
    assert sent["seed"] == [0]
    assert sent["min_tokens"] == [0]
    assert sent["end_id"] == [-1]
    assert "stop_words_list" not in sent


def test_padding_beyond_sequence_length_is_dropped() -> None:
    tokens = decode(answer([4, 5, 0, 0], length=2).infer_response)
    assert list(tokens.ids) == [4, 5]


def test_log_probs_that_are_too_few_are_an_error() -> None:
    with pytest.raises(InternalError):
        decode(answer([4, 5], log_probs=[-0.5]).infer_response, log_probs=True)


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
        await send(answer([3], log_probs=[-0.5]))
        await send(answer([]))
        await send(answer([4, 5], log_probs=[-1.5, -0.25]))
        await send(empty_final())

    async with connected(behave) as (_, backend):
        received = await collect(backend, FULL)
    assert [list(tokens.ids) for tokens in received] == [[3], [], [4, 5], []]
    assert [list(tokens.log_probs) for tokens in received] == [[-0.5], [], [-1.5, -0.25], []]
    assert [tokens.final for tokens in received] == [False, False, False, True]


async def test_closing_the_answer_cancels_the_request_in_triton_at_once() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))
        await asyncio.Event().wait()

    async with connected(behave) as (triton, backend):
        async with aclosing(backend.generate(PLAIN)) as tokens:
            await anext(tokens)
        await asyncio.wait_for(triton.cancellation.wait(), 1)
        assert triton.cancelled == ["r2"]


async def test_cancelling_the_task_cancels_the_request_before_its_first_token() -> None:
    async def behave(_: Any, send: Send) -> None:
        await asyncio.Event().wait()

    async with connected(behave) as (triton, backend):
        task = asyncio.create_task(collect(backend))
        while not triton.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(triton.cancellation.wait(), 1)


async def test_an_error_message_ends_the_answer() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))
        await send(failure("Exceeds maximum queue size"))
        await asyncio.Event().wait()

    async with connected(behave) as (triton, backend):
        with pytest.raises(OverloadedError):
            await collect(backend)
        await asyncio.wait_for(triton.cancellation.wait(), 1)


async def test_a_stream_that_ends_without_a_final_response_is_an_error() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))

    async with connected(behave) as (_, backend):
        with pytest.raises(InternalError):
            await collect(backend)


async def test_a_triton_that_goes_silent_is_given_up() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))
        await asyncio.Event().wait()

    async with connected(behave, stall_seconds=0.2) as (_, backend):
        with pytest.raises(NotReadyError, match="stopped answering"):
            await asyncio.wait_for(collect(backend), 5)


async def test_a_triton_that_is_away_is_told_at_once_and_found_again() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3], final=True))

    async with fake_triton(behave) as triton:
        address = triton.address
    backend = backend_for(address)
    try:
        start = time.perf_counter()
        with pytest.raises(NotReadyError):
            await collect(backend)
        assert time.perf_counter() - start < 1
        assert not await backend.ready()
        async with fake_triton(behave, port=int(address.rpartition(":")[2])):
            while not await backend.ready():
                assert time.perf_counter() - start < 10
                await asyncio.sleep(0.05)
            assert [list(tokens.ids) for tokens in await collect(backend)] == [[3]]
    finally:
        await backend.close()


async def test_a_triton_that_dies_in_mid_answer_is_an_error_not_a_hang() -> None:
    async def behave(_: Any, send: Send) -> None:
        await send(answer([3]))
        await asyncio.Event().wait()

    async with fake_triton(behave) as triton:
        backend = backend_for(triton.address)
        answering = backend.generate(PLAIN)
        await anext(answering)
    with pytest.raises(NotReadyError):
        await asyncio.wait_for(anext(answering), 5)
    await backend.close()


async def test_readiness_is_the_models_own() -> None:
    async def behave(_: Any, send: Send) -> None:
        raise NotImplementedError

    async with connected(behave) as (triton, backend):
        assert await backend.ready()
        triton.ready = False
        assert not await backend.ready()
