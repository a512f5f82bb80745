"""For the acceptance: a served model, its answers, and transformers' judgement of them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_S = 1800
STOP_S = 120
NEAR = 0.1
"""Logits this close are a tie to arithmetic in 16 bits."""


@dataclass(frozen=True)
class Answer:
    """A prompt and the greedy text that followed."""

    prompt: str
    text: str


class Served:
    """`trtbuild serve` on a free port, and questions to it."""

    def __init__(self, repository: Path, name: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self.command = ["trtbuild", "serve", str(repository), "--port", str(self._port)]
        self.command += ["--start-timeout", str(START_S)]

    def start(self) -> str:
        """Until it is ready."""
        began = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-m", *self.command])
        while self._process.poll() is None:
            try:
                urllib.request.urlopen(self._url("health"), timeout=5).close()
                return f"ready after {time.monotonic() - began:.0f} s"
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(f"trtbuild serve ended with {self._process.returncode}")

    def running(self) -> bool:
        """Whether there is something to stop."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> str:
        """In order, or by force and with an error."""
        if self._process is None:
            raise RuntimeError("it never started")
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"still there after {STOP_S} s") from None
        if code != 0:
            raise RuntimeError(f"exit code {code}")
        return "in order"

    def answers(self, prompts: Sequence[str], tokens: int) -> list[Answer]:
        """The greedy continuations, just so long, asked for at once."""
        with ThreadPoolExecutor(len(prompts)) as pool:
            found = pool.map(lambda prompt: self._complete(prompt, tokens), prompts)
            return [
                Answer(prompt, each["choices"][0]["text"])
                for prompt, each in zip(prompts, found, strict=True)
            ]

    def throughput(self, clients: int, tokens: int) -> float:
        """Tokens per second that `clients` at once get, each with a prompt of its own."""
        prompts = [
            f"{i}. The most remarkable thing about the number {i} is" for i in range(clients)
        ]
        began = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(lambda prompt: self._complete(prompt, tokens), prompts))
        made = sum(answer["usage"]["completion_tokens"] for answer in answers)
        return float(made / (time.monotonic() - began))

    def _complete(self, prompt: str, tokens: int) -> Any:
        body = {
            "model": self._name,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "skip_special_tokens": False,
        }
        request = urllib.request.Request(
            self._url("v1/completions"),
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}/{path}"


class Reference:
    """transformers' model and its tokenizer's ids."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def ids(self, text: str) -> list[int]:
        """As the proxy reads a prompt."""
        found: list[int] = self._tokenizer.encode(text).ids
        return found

    def choices(self, ids: list[int]) -> tuple[list[int], list[float]]:
        """For each token but the first: the model's choice, and how far the token lies below it."""
        import torch

        with torch.no_grad():
            given = torch.tensor([ids], device=self._model.device)
            logits = self._model(given).logits[0, :-1].float()
        best, choice = logits.max(-1)
        told = logits.gather(-1, given[0, 1:, None])[:, 0]
        return choice.tolist(), (best - told).tolist()


def load_reference(model: Path, tokenizer: Path, dtype: str) -> Reference:
    """`model` in transformers, on the GPU where there is one."""
    import torch
    import transformers
    from tokenizers import Tokenizer

    gguf = {"gguf_file": model.name} if model.is_file() else {}
    cuda = torch.cuda.is_available()
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        model.parent if gguf else model,
        torch_dtype=getattr(torch, dtype if cuda else "float32"),
        **gguf,
    )
    return Reference(
        loaded.to("cuda" if cuda else "cpu").eval(), Tokenizer.from_file(str(tokenizer))
    )


def compare(answers: list[Answer], reference: Reference) -> dict[str, int]:
    """How many of the answers' tokens transformers would have chosen, given those before them.

    `near` are those that lie within NEAR of its choice. An answer is read back as tokens: where
    the text of other tokens is the same, these are compared. The last isn't: two line ends, of
    which the answer was cut after the second, are read as one token that nobody chose.
    """
    found = {"tokens": 0, "same": 0, "near": 0}
    for answer in answers:
        start = len(reference.ids(answer.prompt))
        ids = reference.ids(answer.prompt + answer.text)
        chosen, below = (each[start - 1 : -1] for each in reference.choices(ids))
        same = [a == b for a, b in zip(chosen, ids[start:-1], strict=True)]
        found["tokens"] += len(same)
        found["same"] += sum(same)
        found["near"] += sum(not s and gap <= NEAR for s, gap in zip(same, below, strict=True))
    return found
