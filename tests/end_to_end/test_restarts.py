"""Promise: a Triton that is killed under load, again and again, costs answers and nothing else.

Every request ends within seconds, with an answer or a clear error; none is answered twice; the
proxy is never started again. The engine is a stand-in, slow on purpose; the rest is real.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from stack import tritonservers
from waiting import until

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions
from builder.targets.openvino import build
from triton_repo.launch.ports import free_ports
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository

pytestmark = pytest.mark.triton

NAME = "tiny"
CLIENTS = 16
TOKENS = 40
ENGINE = """
import threading, time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.open = []
        threading.Thread(target=self.run, daemon=True).start()

    def execute(self, requests):
        for request in requests:
            named = {{tensor.name(): tensor.as_numpy().reshape(-1) for tensor in request.inputs()}}
            ids = named["input_ids"].copy()
            with open({begun!r}, "a") as file:
                print(ids.tolist(), file=file)
            sender, limit = request.get_response_sender(), int(named["request_output_len"][0])
            self.open.append([sender, ids, limit, 0])

    def run(self):
        while True:
            time.sleep(0.02)
            for answer in list(self.open):
                self.step(answer)

    def step(self, answer):
        sender, ids, limit, sent = answer
        answer[3] += 1
        last = sender.is_cancelled() or answer[3] == limit
        if last:
            self.open.remove(answer)
        tensors = [
            pb.Tensor("output_ids", np.array([[[ids[sent % ids.size]]]], np.int32)),
            pb.Tensor("sequence_length", np.array([[1]], np.int32)),
            pb.Tensor("num_output_tokens", np.array([[1]], np.int32)),
        ]
        final = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        sender.send(pb.InferenceResponse(tensors), flags=final)
"""
"""Says its prompt again and again, a token every 20 ms, and writes down what it began."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a request ended: `error` is the code that the client was told, None for an answer."""

    prompt: str
    began: float
    ended: float
    text: str = ""
    error: str | None = None


@dataclass
class Stack:
    """A Triton that this process supervises, and a proxy of its own."""

    triton: Triton
    proxy: subprocess.Popen[bytes]
    url: str
    begun: Path
    endings: list[Ending] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def answers(self) -> int:
        return sum(ending.error is None for ending in self.endings)

    def kill(self) -> float:
        """Kill Triton; when that was."""
        [server] = tritonservers(os.getpid())
        moment = time.monotonic()  # before any client can learn of it
        os.kill(server, signal.SIGKILL)
        return moment

    def load(self, number: int) -> None:
        """One client after another until `stopping`; every second client streams."""
        with OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            for turn in range(1_000_000):
                if self.stopping.is_set():
                    return
                ending = ask(client, f"c{number} t{turn}; ", stream=number % 2 == 0)
                self.endings.append(ending)
                if ending.error:
                    time.sleep(0.1)


def ask(client: OpenAI, prompt: str, *, stream: bool) -> Ending:
    """One request, to its end."""
    began, told, error = time.monotonic(), "", None
    asked: Any = {"model": NAME, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    try:
        if stream:
            finishes: list[str] = []
            for chunk in client.completions.create(**asked, stream=True):
                assert not finishes, "something comes after the end"
                told += chunk.choices[0].text
                if chunk.choices[0].finish_reason:
                    finishes.append(chunk.choices[0].finish_reason)
            assert finishes == ["length"], "a stream ends without an end"
        else:
            told = client.completions.create(**asked).choices[0].text
    except openai.APIError as failed:
        error = str(failed.code or failed)
    ended = time.monotonic()
    return Ending(prompt=prompt, began=began, ended=ended, text=told, error=error)


@pytest.fixture(scope="module")
def repository(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("restarts")
    convert(tiny_models["llama"], root / "checkpoint", options=ConvertOptions(dtype="float32"))
    build(root / "checkpoint", root / "engine", options=LimitOptions(kv_cache_gib=0.01))
    write_repository(root / "engine", root / "repository", name=NAME)
    return root / "repository"


@contextmanager
def started(repository: Path, folder: Path) -> Iterator[Stack]:
    """The two parts, while the body runs."""
    begun = folder / "begun.jsonl"
    config = LaunchConfig(
        repository=repository,
        log_path=folder / "triton.log",
        python_backends={"tensorrtllm": ENGINE.format(begun=str(begun))},
        models=("tensorrt_llm",),
        backoff_s=0.1,
        max_backoff_s=0.1,
        max_failures=1000,
        grace_s=3,
    )
    [port] = free_ports("127.0.0.1", 1)
    with Triton(config) as triton:
        command = [sys.executable, "-m", "trtbuild", "serve", str(repository), "--only", "proxy"]
        options = ["--triton", triton.grpc_address, "--port", str(port)]
        proxy = subprocess.Popen([*command, *options])
        try:
            stack = Stack(triton, proxy, f"http://127.0.0.1:{port}", begun)
            until(lambda: healthy(stack), 180)
            yield stack
        finally:
            proxy.terminate()
            proxy.wait(60)


def healthy(stack: Stack) -> bool:
    try:
        return httpx2.get(f"{stack.url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    # as a rule it is a fraction of a second; beside other tests only that it ends
    ("kills", "ends_within_s"),
    [(3, 30), pytest.param(20, 5, marks=pytest.mark.slow)],
)
def test_every_request_ends_soon_and_once_however_often_triton_is_killed(
    repository: Path, tmp_path: Path, kills: int, ends_within_s: float
) -> None:
    killed = []
    with started(repository, tmp_path) as stack, ThreadPoolExecutor(CLIENTS) as clients:
        runs = [clients.submit(stack.load, number) for number in range(CLIENTS)]
        try:
            for _ in range(kills):
                enough = stack.answers + CLIENTS
                until(lambda enough=enough: stack.answers >= enough, 180)
                killed.append(stack.kill())
            enough = stack.answers + CLIENTS
            until(lambda: stack.answers >= enough, 180)
        finally:
            stack.stopping.set()
        for run in runs:
            run.result(60)
        assert stack.proxy.poll() is None
        endings = list(stack.endings)

    for ending in endings:
        whole = (ending.prompt * TOKENS)[: len(ending.text)]
        assert ending.text == whole, "tokens are missing, or came twice"
        before = [at for at in killed if at < ending.ended]
        if ending.error:
            assert ending.error in ("service_unavailable", "internal_error")
            assert ending.ended - max(before[-1], ending.began) < ends_within_s
    for at in killed:
        struck = [ending for ending in endings if ending.began < at < ending.ended]
        assert struck
        assert all(ending.ended - at < ends_within_s for ending in struck)
    begun = Counter(stack.begun.read_text().splitlines())
    assert len(begun) >= stack.answers
    assert set(begun.values()) == {1}, "a request was answered twice"
