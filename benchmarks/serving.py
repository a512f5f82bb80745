"""Tokens per second at 1, 8 and 32 clients: through the whole stack, and of the bare executor.

Side by side in one run, on the model and dtype given: prompts of 64 tokens, 64 new tokens, greedy,
no end-of-sequence, no shared prefix. Run it with the demo's or the tests' environment:

    python benchmarks/serving.py [--model MODEL] [--dtype float32] [--work DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from openai import AsyncOpenAI
from smollm2 import bundled_model

from triton_repo.executor.executor import Executor, ExecutorConfig
from triton_repo.executor.request import Output, Request

NAME = "benchmark"
CLIENTS = (1, 8, 32)
PROMPT_TOKENS = NEW_TOKENS = 64
ROUNDS = 3


def prompts(seed: int, count: int) -> list[list[int]]:
    """Random token ids: no two prompts share a beginning."""
    rng = random.Random(seed)
    return [[rng.randrange(100, 40_000) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


async def through_the_stack(url: str, clients: int, seed: int) -> float:
    """Tokens per second of `clients` that each ask once."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        started = time.perf_counter()
        await asyncio.gather(
            *(
                client.completions.create(
                    model=NAME,
                    prompt=prompt,
                    max_tokens=NEW_TOKENS,
                    temperature=0,
                    extra_body={"ignore_eos": True},
                )
                for prompt in prompts(seed, clients)
            )
        )
        return clients * NEW_TOKENS / (time.perf_counter() - started)


def bare(executor: Executor, clients: int, seed: int) -> float:
    """The same, asked of the executor in this process."""
    left = threading.Semaphore(0)

    def sink(output: Output) -> None:
        if output.finish:
            left.release()

    started = time.perf_counter()
    for prompt in prompts(seed, clients):
        executor.submit(Request(input_ids=prompt, max_tokens=NEW_TOKENS), sink)
    for _ in range(clients):
        left.acquire()
    return clients * NEW_TOKENS / (time.perf_counter() - started)


def measure_stack(arguments: argparse.Namespace) -> dict[int, float]:
    """The best of some rounds for each number of clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--work", str(arguments.work), "--name", NAME, "--dtype", arguments.dtype]
    command = [sys.executable, "-m", "trtbuild", "up", str(arguments.model), *options]
    process = subprocess.Popen([*command, "--port", str(port)])
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)
                break
            except (urllib.error.URLError, TimeoutError):
                if process.poll() is not None:
                    sys.exit("trtbuild up ended before it was ready")
                time.sleep(0.1)
        asyncio.run(through_the_stack(url, 1, seed=0))
        return {
            clients: max(
                asyncio.run(through_the_stack(url, clients, seed=10 * clients + turn))
                for turn in range(ROUNDS)
            )
            for clients in CLIENTS
        }
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def measure_bare(arguments: argparse.Namespace) -> dict[int, float]:
    """The same for the bare executor on the same engine."""
    engine = arguments.work / NAME / "engine"
    executor = Executor(engine, ExecutorConfig.of(engine))
    bare(executor, 1, seed=0)
    found = {
        clients: max(bare(executor, clients, seed=10 * clients + turn) for turn in range(ROUNDS))
        for clients in CLIENTS
    }
    executor.close()
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--work", type=Path, default=Path("work"))
    arguments = parser.parse_args()
    arguments.model = arguments.model or bundled_model()
    stack, executor = measure_stack(arguments), measure_bare(arguments)
    print(f"{'clients':>8} {'stack':>10} {'executor':>10} {'ratio':>6} {'vs 1 client':>12}")
    for clients in CLIENTS:
        ratio, growth = stack[clients] / executor[clients], stack[clients] / stack[1]
        print(
            f"{clients:8} {stack[clients]:10.1f} {executor[clients]:10.1f} {ratio:6.2f} "
            f"{growth:11.1f}x"
        )


if __name__ == "__main__":
    main()
