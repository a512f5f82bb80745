"""Promise: what a plain Triton client gets wrong is told by name, and hurts nobody else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from backend_repository import ask, engine, inputs, one, serving
from running import stream, tensors
from tritonclient import grpc as grpc_client
from tritonclient.utils import InferenceServerException

from triton_repo.launch.triton import Triton

pytestmark = pytest.mark.triton

PROMPT = [5, 6, 7]
ANSWER = 8
WAITING = 5


@pytest.fixture(scope="module")
def triton(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    """A real Triton with our executor behind it; few requests may wait."""
    folder = tmp_path_factory.mktemp("plain")
    built = engine(tiny_models["llama"], folder)
    with serving(built, folder, max_queue_size=WAITING) as running:
        yield running


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_ids": None}, "input_ids"),
        ({"input_ids": np.array([[5, -6, 7]], np.int32)}, "input_ids.*found -6"),
        ({"input_ids": np.array([[5, 384, 7]], np.int32)}, "input_ids.*found 384"),
        ({"input_lengths": one(4, np.int32)}, "input_lengths"),
        ({"request_output_len": one(-1, np.int32)}, "request_output_len: at least one token"),
        ({"end_id": one(10**9, np.int32)}, "end_id must lie below"),
        ({"temperature": one(np.nan, np.float32)}, "temperature"),
        ({"stop_words_list": np.array([[[1, 2], [2, 1]]], np.int32)}, "stop_words_list"),
        ({"beam_width": one(9, np.int32)}, "beam_width"),
        ({"num_return_sequences": one(10**9, np.int32)}, "num_return_sequences"),
        ({"draft_input_ids": np.ones((1, 5000), np.int32)}, "draft_input_ids"),
        ({"lora_task_id": one(3, np.uint64)}, "lora_task_id.*send lora_weights"),
        ({"lookahead_window_size": one(3, np.int32)}, "lookahead_window_size is not supported"),
        ({"seed": np.array([[1], [2]], np.uint64)}, "seed|batch"),
    ],
)
def test_a_malformed_request_is_refused_by_name(
    triton: Triton, changes: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(InferenceServerException, match=says):
        ask(triton, PROMPT, ANSWER, **changes)


def test_a_table_of_no_stop_words_is_padding_alone(triton: Triton) -> None:
    padding = np.array([[[0, 0], [-1, -1]]], np.int32)
    plain = ask(triton, PROMPT, ANSWER)
    assert ask(triton, PROMPT, ANSWER, stop_words_list=padding) == plain


def test_a_stop_without_a_request_id_would_stop_strangers(triton: Triton) -> None:
    stop = inputs(PROMPT, 1, stop=one(True, np.bool_))
    with pytest.raises(InferenceServerException, match="request id"):
        stream(triton, "tensorrt_llm", stop, ids=[""])


def test_a_stop_ends_the_request_of_its_id_and_no_other(triton: Triton) -> None:
    streaming = one(True, np.bool_)
    long = inputs(PROMPT, 400, streaming=streaming)
    sizes = {"a": 0, "b": 0}
    over = threading.Event()
    finals: list[str] = []

    def arrived(result: grpc_client.InferResult, error: Exception | None) -> None:
        assert error is None
        message = result.get_response()
        if message.outputs:
            sizes[message.id] += result.as_numpy("output_ids").size
        if message.id == "a" and sizes["a"] >= 3 and not stopping.is_set():
            stopping.set()
        if message.parameters["triton_final_response"].bool_param:
            finals.append(message.id)
            if len(finals) == 3:
                over.set()

    stopping = threading.Event()
    with grpc_client.InferenceServerClient(triton.grpc_address) as connection:
        connection.start_stream(arrived)

        def send(name: str, request: dict[str, np.ndarray]) -> None:
            connection.async_stream_infer(
                "tensorrt_llm",
                tensors(request),
                request_id=name,
                enable_empty_final_response=True,
            )

        send("a", long)
        send("b", long)
        assert stopping.wait(60)
        send("a", {**long, "stop": one(True, np.bool_)})
        assert over.wait(60)
    assert sizes["b"] == 400
    assert sizes["a"] < 400


def test_neighbours_of_a_malformed_request_go_on(triton: Triton) -> None:
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.extend(ask(triton, PROMPT, 300)))
    asking.start()
    while asking.is_alive():
        with pytest.raises(InferenceServerException):
            ask(triton, PROMPT, ANSWER, end_id=one(10**9, np.int32))
    assert len(found) == 300


def test_beyond_the_queue_requests_are_refused_at_once_and_the_others_answered(
    triton: Triton,
) -> None:
    expected = ask(triton, PROMPT, 60)

    def one_of_many(number: int) -> list[int] | str:
        try:
            return ask(triton, PROMPT, 60)
        except InferenceServerException as error:
            return str(error)

    with ThreadPoolExecutor(60) as clients:
        ends = list(clients.map(one_of_many, range(60)))
    refused = [end for end in ends if isinstance(end, str)]
    assert refused
    assert all("queue" in end for end in refused)
    assert [end for end in ends if not isinstance(end, str)] == [expected] * (60 - len(refused))


def test_a_thread_that_fails_ends_the_process_so_that_it_is_started_again() -> None:
    program = (
        "import sys, threading, types\n"
        "utils = types.SimpleNamespace(TRITONSERVER_RESPONSE_COMPLETE_FINAL=1)\n"
        "sys.modules['triton_python_backend_utils'] = utils\n"
        "from triton_repo.runtime import tensorrtllm\n"
        "threading.excepthook = tensorrtllm._die\n"
        "threading.Thread(target=lambda: 1 / 0).start()\n"
        "threading.Event().wait()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr
