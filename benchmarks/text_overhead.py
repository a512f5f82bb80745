"""What the models that take text cost: tokens per second through them, and through the engine's.

The same tiny engine, whose steps cost next to nothing, and the same prompts and limits, all
streamed, in turns in one run: `tensorrt_llm` with token ids, the two others with text.

    python benchmarks/text_overhead.py [--clients 8] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from pathlib import Path

from tiny_llama import tiny_engine
from token_client import MODEL, TEXT_MODELS, TokenClient, request, text_request
from triton_overhead import NEW_TOKENS, PROMPT_TOKENS, cpu_seconds

from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository


def wire(model: str, rng: random.Random) -> tuple[bytes, int]:
    """A request, and how many tokens it gives; a letter of the prompt is a token."""
    letters = [rng.choice(range(97, 123)) for _ in range(PROMPT_TOKENS)]
    tokens = rng.randint(*NEW_TOKENS)
    if model == MODEL:
        return request([letter - 33 for letter in letters], tokens), tokens
    text = "".join(map(chr, letters))
    return text_request(model, text, tokens, stream=True, top_k=1, end_id=-1), tokens


async def measure(triton: Triton, model: str, clients: int, requests: int) -> tuple[float, float]:
    """Tokens per second, and CPU microseconds of Triton and its models a token."""
    rng = random.Random(clients)
    work = [[wire(model, rng) for _ in range(requests)] for _ in range(clients)]
    client = TokenClient(triton.grpc_address)

    async def one(wires: list[tuple[bytes, int]]) -> None:
        for asked, _ in wires:
            async for answer in client.ask(asked):
                if answer.error:
                    raise RuntimeError(answer.error)

    used, started = cpu_seconds(triton), time.perf_counter()
    await asyncio.gather(*map(one, work))
    wall, used = time.perf_counter() - started, cpu_seconds(triton) - used
    await client.close()
    tokens = sum(count for wires in work for _, count in wires)
    return tokens / wall, 1e6 * used / tokens


def main() -> None:
    """Measure, print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=6, help="of each client in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("work/triton_overhead"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    models = (MODEL, *TEXT_MODELS)
    write_repository(tiny_engine(work), work / "text_repository")
    launch = LaunchConfig(
        repository=work / "text_repository", log_path=work / "triton.log", models=models
    )
    found: dict[str, list[tuple[float, float]]] = {model: [] for model in models}
    with Triton(launch) as triton:
        for turn in range(-1, arguments.rounds):
            for model in models:
                one = asyncio.run(measure(triton, model, arguments.clients, arguments.requests))
                # the first turn warms up
                if turn >= 0:
                    found[model].append(one)
            print(f"round {turn + 1}: done", file=sys.stderr)
    rows = {
        model: {
            "tokens_per_s": statistics.median(speed for speed, _ in rounds),
            "cpu_us_per_token": statistics.median(cpu for _, cpu in rounds),
        }
        for model, rounds in found.items()
    }
    for row in rows.values():
        row["ratio"] = row["tokens_per_s"] / rows[MODEL]["tokens_per_s"]
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"{'':18}{'tokens/s':>10}{'ratio':>8}{'CPU us a token':>16}")
    for model, row in rows.items():
        print(
            f"{model:18}{row['tokens_per_s']:10.0f}{row['ratio']:8.2f}{row['cpu_us_per_token']:16.0f}"
        )


if __name__ == "__main__":
    main()
