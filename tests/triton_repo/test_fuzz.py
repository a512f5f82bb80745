"""Promise: no request, however malformed, crashes a model, hangs a slot or hurts its neighbours.

2,000 requests, each a good one with one to three tensors spoiled, go to a real Triton over gRPC,
many at a time. Each must end, with an answer or with an error that names a tensor.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_client
from backend_repository import VOCAB, ask, engine, inputs, one, serving
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
from waiting import until

from triton_repo.contract import contract
from triton_repo.launch.triton import Triton

pytestmark = pytest.mark.triton

REQUESTS = {"tensorrt_llm": 2000, "ensemble": 400, "preprocessing": 200}
AT_ONCE = 64
PROMPT = [5, 6, 7, 9]
NAMES = {tensor.name for model in REQUESTS for tensor in contract(model).inputs}
TYPES: dict[str, Any] = {
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "UINT8": np.uint8,
    "FP16": np.float16,
    "FP32": np.float32,
    "BOOL": np.bool_,
    "STRING": np.object_,
    "logits": np.float32,
}
Random = np.random.Generator
Spoil = Callable[[Random, Any, tuple[int, ...]], np.ndarray]


@pytest.fixture(scope="module")
def triton(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    """A real Triton with our executor behind it."""
    folder = tmp_path_factory.mktemp("fuzz")
    with serving(engine(tiny_models["llama"], folder), folder, alone=False) as running:
        yield running


def _value(random: Random, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Absurd values of a type: the ends of its range, NaN, infinity, broken UTF-8, huge texts."""
    if dtype is np.object_:
        texts = [b"", b"\xff\xfe", b"json", b"(", b"\0" * 9, b"[" * 3000, b'{"type": 3}', b"regex"]
        return np.array(texts, object)[random.integers(len(texts), size=shape)]
    if dtype is np.bool_:
        return random.integers(0, 2, shape).astype(bool)
    if np.issubdtype(dtype, np.floating):
        values = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-38, 1e38, 0.5, 2.0]
        with np.errstate(over="ignore"):
            return random.choice(values, shape).astype(dtype)
    info = np.iinfo(dtype)
    wanted = [info.min, info.max, 0, 1, 2, VOCAB - 1, VOCAB, info.min + 1, 7, -1]
    values = np.array([min(max(value, info.min), info.max) for value in wanted], dtype)
    return values[random.integers(len(values), size=shape)]


def absurd(random: Random, dtype: Any, dims: tuple[int, ...]) -> np.ndarray:
    """The right type and shape, a senseless value."""
    shape = tuple(int(random.integers(1, 6)) if size < 0 else size for size in dims)
    return _value(random, dtype, (1, *shape))


def wrong_type(random: Random, dtype: Any, dims: tuple[int, ...]) -> np.ndarray:
    others = [other for other in TYPES.values() if other is not dtype]
    return _value(random, others[int(random.integers(len(others)))], (1, 1))


def wrong_shape(random: Random, dtype: Any, dims: tuple[int, ...]) -> np.ndarray:
    shapes = [(0,), (1,), (1, 0), (3, 2), (1, 1, 1, 1), (2, 1), (1, 5), (1, 2, 3)]
    return _value(random, dtype, shapes[int(random.integers(len(shapes)))])


def giant(random: Random, dtype: Any, dims: tuple[int, ...]) -> np.ndarray:
    return np.resize(_value(random, dtype, (1, 64)), (1, int(random.integers(5_000, 50_000))))


def giant_words(random: Random) -> np.ndarray:
    count = int(random.integers(1000, 20_000))
    ends = np.arange(1, count + 1)
    return np.stack([random.integers(-1, VOCAB + 1, count), ends])[None].astype(np.int32)


SPOILS: tuple[Spoil, ...] = (absurd, absurd, absurd, wrong_type, wrong_shape, giant)


def good(model: str, *, streaming: bool) -> dict[str, np.ndarray]:
    """A request of four tokens that the model takes."""
    text, length = np.array([[b"hello there"]], object), one(4, np.int32)
    if model == "tensorrt_llm":
        return inputs(PROMPT, 4, streaming=one(streaming, np.bool_))
    if model == "ensemble":
        return {"text_input": text, "max_tokens": length, "stream": one(streaming, np.bool_)}
    return {"QUERY": text, "REQUEST_OUTPUT_LEN": length}


def spoiled(random: Random, model: str) -> dict[str, np.ndarray]:
    """A good request with one to three inputs spoiled, or left out."""
    request = good(model, streaming=bool(random.integers(2)))
    tensors = contract(model).inputs
    for index in random.choice(len(tensors), int(random.integers(1, 4)), replace=False):
        tensor = tensors[int(index)]
        if random.random() < 0.05:
            request.pop(tensor.name, None)
        elif tensor.name.endswith("words_list") and random.random() < 0.5:
            request[tensor.name] = giant_words(random)
        else:
            spoil = SPOILS[int(random.integers(len(SPOILS)))]
            request[tensor.name] = spoil(random, TYPES[tensor.dtype], tensor.dims)
    # long answers would only make the test slow
    for name in ("request_output_len", "max_tokens"):
        length = request.get(name)
        if length is not None and length.dtype == np.int32:
            request[name] = np.minimum(length, 8)
    return request


def _tensors(request: dict[str, np.ndarray]) -> list[Any]:
    made = []
    for name, array in request.items():
        tensor = grpc_client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


async def _end(client: Any, model: str, request: dict[str, np.ndarray]) -> str:
    """Send a request on a stream of its own; its error, or "" for an answer."""

    async def only() -> Any:
        yield {
            "model_name": model,
            "inputs": _tensors(request),
            "enable_empty_final_response": True,
        }

    error = ""
    async for result, problem in client.stream_infer(only(), stream_timeout=120):
        if problem is not None:
            error = problem.message()
        if problem is not None and result is None:
            continue
        if (
            result is not None
            and result.get_response().parameters["triton_final_response"].bool_param
        ):
            break
    return error


async def _all(address: str, model: str, requests: list[dict[str, np.ndarray]]) -> list[str]:
    gate = asyncio.Semaphore(AT_ONCE)
    async with grpc_client.InferenceServerClient(address) as client:

        async def one_of_them(request: dict[str, np.ndarray]) -> str:
            async with gate:
                try:
                    return await _end(client, model, request)
                except InferenceServerException as error:
                    return error.message()

        return await asyncio.gather(*map(one_of_them, requests))


def gauge(triton: Triton, label: str) -> float:
    """The value of one of the executor's metrics."""
    with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics", timeout=20) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if label in line)


def idle(triton: Triton) -> bool:
    """Whether no slot and no block is taken."""
    free, most = (gauge(triton, f'kv_cache_block_type="{kind}"') for kind in ("free", "max"))
    return free == most > 0 and gauge(triton, 'request_type="active"') == 0


@pytest.mark.parametrize("model", REQUESTS)
def test_malformed_requests_all_end_and_leave_nothing_behind(triton: Triton, model: str) -> None:
    pid = triton.pid
    expected = ask(triton, PROMPT, 12)
    random = np.random.default_rng(2026)
    requests = [spoiled(random, model) for _ in range(REQUESTS[model])]
    ends = asyncio.run(_all(triton.grpc_address, model, requests))
    assert len(ends) == REQUESTS[model]
    for request, end in zip(requests, ends, strict=True):
        known = not end or "batch" in end or any(name in end for name in NAMES)
        shapes = {name: value.shape for name, value in request.items()}
        assert known, (end, shapes)
        assert "Traceback" not in end, (end, shapes)
        assert "not healthy" not in end, (end, shapes)
    assert 0.3 < sum(map(bool, ends)) / len(ends) < 1
    assert ask(triton, PROMPT, 12) == expected
    assert triton.pid == pid
    until(lambda: idle(triton))
