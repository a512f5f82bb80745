"""An engine for tests that says its prompt again and again, and writes down how each answer ended.

As TensorRT-LLM's backend it has many answers under way, and ends those whose clients have gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiny_engine import make_engine

from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from triton_repo.settings.options import RepositoryOptions

SEEN = "seen.jsonl"
REPEATING_BACKEND = """
import json, pathlib, threading, time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.open = []
        threading.Thread(target=self.run, daemon=True).start()

    def execute(self, requests):
        for request in requests:
            inputs = {t.name(): t.as_numpy().reshape(-1).copy() for t in request.inputs()}
            sender = request.get_response_sender()
            ids = inputs["input_ids"]
            if ids[-1] == 2:
                error = pb.TritonError("no prompt ends so", pb.TritonError.INVALID_ARG)
                final = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
                sender.send(pb.InferenceResponse(error=error), flags=final)
                continue
            self.open.append([sender, ids, int(inputs["request_output_len"][0]),
                              bool(inputs["streaming"][0]), 0])

    def run(self):
        while True:
            time.sleep(0.002)
            for answer in list(self.open):
                self.step(answer)

    def step(self, answer):
        sender, ids, limit, streaming, sent = answer
        if sender.is_cancelled():
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return self.end(answer, "cancelled")
        size = 1 if streaming else limit
        part = np.resize(np.roll(ids, -sent), size).astype(np.int32)
        answer[4] += size
        last = answer[4] >= limit
        sender.send(
            pb.InferenceResponse([
                pb.Tensor("output_ids", part.reshape(1, 1, -1)),
                pb.Tensor("sequence_length", np.array([[size]], np.int32)),
                pb.Tensor("num_output_tokens", np.array([[size]], np.int32)),
            ]),
            flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0,
        )
        if last:
            self.end(answer, "finished")

    def end(self, answer, how):
        self.open.remove(answer)
        with open("seen.jsonl", "a") as file:
            print(json.dumps([how, answer[4]]), file=file)
"""


@contextmanager
def repeating_triton(folder: Path, **options: Any) -> Iterator[Triton]:
    """A repository of all models on Triton, with that engine, which has room for long answers."""
    engine = make_engine(folder / "engine", max_seq_len=100_000)
    write_repository(engine, folder / "repo", options=RepositoryOptions(**options))
    config = LaunchConfig(
        repository=folder / "repo",
        log_path=folder / "triton.log",
        python_backends={"tensorrtllm": REPEATING_BACKEND},
        model_control=True,
        grace_s=3,
    )
    with Triton(config) as triton:
        yield triton


def endings(triton: Triton) -> list[tuple[str, int]]:
    """How each answer of the engine ended so far, and after how many tokens."""
    path = triton.config.repository / SEEN
    lines = path.read_text().splitlines() if path.exists() else []
    return [(how, tokens) for how, tokens in map(json.loads, lines)]
