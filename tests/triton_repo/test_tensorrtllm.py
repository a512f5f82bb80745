"""Promise: what a plain Triton client gets wrong is told by name, and hurts nobody else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import stream
from tritonclient.utils import InferenceServerException

from triton_repo.launch import LaunchConfig, Triton
from triton_repo.layout import write_repository

pytestmark = pytest.mark.triton

ANSWER = 8


@pytest.fixture(scope="module")
def triton(tiny_engine_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A real Triton with our executor behind it."""
    folder = tmp_path_factory.mktemp("plain")
    write_repository(tiny_engine_dir, folder / "repo")
    with Triton(LaunchConfig(repository=folder / "repo", log_path=folder / "log")) as running:
        yield running


def one(value: Any, dtype: type) -> np.ndarray:
    return np.array([[value]], dtype)


def ask(triton: Triton, **changes: np.ndarray | None) -> list[int]:
    """The new tokens for a prompt of three, with some inputs set, or left out by None."""
    inputs = {
        "input_ids": np.array([[5, 6, 7]], np.int32),
        "input_lengths": one(3, np.int32),
        "request_output_len": one(ANSWER, np.int32),
        "streaming": one(True, np.bool_),
        **changes,
    }
    given = {name: value for name, value in inputs.items() if value is not None}
    return [
        int(token)
        for result in stream(triton, "tensorrt_llm", given)
        for token in result.as_numpy("output_ids").reshape(-1)
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_ids": None}, "input_ids is missing"),
        ({"input_ids": np.array([[5, -6, 7]], np.int32)}, "found -6"),
        ({"input_ids": np.array([[5, 384, 7]], np.int32)}, "found 384"),
        ({"input_lengths": one(-1, np.int32)}, "input_lengths"),
        ({"input_lengths": one(4, np.int32)}, "input_lengths"),
        ({"request_output_len": one(-1, np.int32)}, "at least one token"),
        ({"end_id": one(10**9, np.int32)}, "end_id must lie below"),
        ({"min_tokens": one(-1, np.int32)}, "min_tokens"),
        ({"temperature": one(np.nan, np.float32)}, "temperature"),
        ({"temperature": one(1e-38, np.float32)}, "temperature"),
        ({"temperature": one(np.inf, np.float32)}, "temperature"),
        ({"runtime_top_k": one(-1, np.int32)}, "runtime_top_k"),
        ({"runtime_top_p": one(1.5, np.float32)}, "runtime_top_p"),
        ({"repetition_penalty": one(np.inf, np.float32)}, "repetition_penalty"),
        ({"presence_penalty": one(np.nan, np.float32)}, "presence_penalty"),
        ({"frequency_penalty": one(-np.inf, np.float32)}, "frequency_penalty"),
        ({"stop_words_list": np.array([[[1, 2], [5, -1]]], np.int32)}, "stop_words_list"),
        ({"stop_words_list": np.array([[[1, 2], [2, 1]]], np.int32)}, "stop_words_list"),
        ({"bad_words_list": np.array([[[1], [1]]], np.int32)}, "bad_words_list"),
        ({"beam_width": one(2, np.int32)}, "beam_width"),
    ],
)
def test_a_malformed_request_is_refused_by_name(
    triton: Triton, changes: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(InferenceServerException, match=says):
        ask(triton, **changes)


def test_a_table_of_no_stop_words_is_padding_alone(triton: Triton) -> None:
    padding = np.array([[[0, 0], [-1, -1]]], np.int32)
    assert ask(triton, stop_words_list=padding) == ask(triton)


def test_a_stop_without_a_request_id_would_stop_strangers(triton: Triton) -> None:
    inputs = {"input_ids": np.array([[5]], np.int32), "input_lengths": one(1, np.int32)}
    stop = {**inputs, "request_output_len": one(1, np.int32), "stop": one(True, np.bool_)}
    with pytest.raises(InferenceServerException, match="request id"):
        stream(triton, "tensorrt_llm", stop, ids=[""])


def test_neighbours_of_a_malformed_request_go_on(triton: Triton) -> None:
    found: list[int] = []
    asking = threading.Thread(
        target=lambda: found.extend(ask(triton, request_output_len=one(400, np.int32)))
    )
    asking.start()
    while asking.is_alive():
        with pytest.raises(InferenceServerException):
            ask(triton, end_id=one(10**9, np.int32))
    assert len(found) == 400


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
