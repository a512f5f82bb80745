"""A real Triton for tests, and the least of a client."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
from tiny_engine import ECHO_BACKEND, make_engine
from tokenizers import Tokenizer
from tritonclient.utils import np_to_triton_dtype

from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from triton_repo.settings.options import RepositoryOptions


@contextmanager
def echo_triton(
    folder: Path, *, tokenizer: Tokenizer | None = None, options: RepositoryOptions | None = None
) -> Iterator[Triton]:
    """A repository of the four models on Triton, with an engine that answers with the prompt."""
    engine = make_engine(folder / "engine", tokenizer=tokenizer)
    write_repository(engine, folder / "repo", options=options)
    config = LaunchConfig(
        repository=folder / "repo",
        log_path=folder / "triton.log",
        python_backends={"tensorrtllm": ECHO_BACKEND},
        grace_s=3,
    )
    with Triton(config) as triton:
        yield triton


def text(*rows: list[str]) -> np.ndarray:
    """A tensor of strings, [rows, n]."""
    return np.array([[value.encode() for value in row] for row in rows], dtype=np.object_)


def tensors(inputs: dict[str, np.ndarray]) -> list[Any]:
    made = []
    for name, array in inputs.items():
        tensor = grpc_client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


@contextmanager
def client(triton: Triton) -> Iterator[Any]:
    connection = grpc_client.InferenceServerClient(triton.grpc_address)
    try:
        yield connection
    finally:
        connection.close()


def infer(triton: Triton, model: str, inputs: dict[str, np.ndarray]) -> Any:
    with client(triton) as connection:
        return connection.infer(model, tensors(inputs), client_timeout=60)


def stream(
    triton: Triton,
    model: str,
    *requests: dict[str, np.ndarray],
    ids: Sequence[str] = (),
    begun: Callable[[], object] = bool,
) -> list[Any]:
    """The responses to requests sent on one stream, in their order of arrival, finals left out.

    Request ids count from 0 where none are given; `begun` is called when a response has come.
    """
    arrived: queue.Queue[Any] = queue.Queue()

    def note(result: Any, error: Any) -> None:
        arrived.put((result, error))
        begun()

    with client(triton) as connection:
        connection.start_stream(note)
        for i, request in enumerate(requests):
            connection.async_stream_infer(
                model,
                tensors(request),
                request_id=ids[i] if ids else str(i),
                enable_empty_final_response=True,
            )
        found, open_requests = [], len(requests)
        while open_requests:
            result, error = arrived.get(timeout=60)
            if error:
                raise error
            message = result.get_response()
            open_requests -= message.parameters["triton_final_response"].bool_param
            if message.outputs:
                found.append(result)
        connection.stop_stream()
    return found
