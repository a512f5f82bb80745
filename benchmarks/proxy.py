"""What the proxy costs: tokens per second of its own CPU time, time added, memory, fairness.

A fake Triton that speaks real gRPC and costs little answers; clients that cost little ask. All of
them share this machine's cores, so what counts is the proxy's own CPU time; wall figures and the
others' CPU time are printed beside it. Beside the proxy, under the same load: LiteLLM's proxy,
whose engine is an OpenAI endpoint, so that it needs neither template nor tokens, and a plain one of
FastAPI, pydantic and grpc.aio (`proxying/plain_proxy.py`); and an endpoint that only writes, which
is what the machine takes for itself. Of several rounds the best counts, for noise only slows down.

    python benchmarks/proxy.py [--litellm PYTHON] [--only speed …] [--quick] [--json]

`--litellm` is the Python of an environment with `litellm[proxy]`; the plain proxy needs `fastapi`
here. Their rows are left out where there is none. Exit code 1 where a figure isn't as promised.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path

from proxying import crowd, latency, long_prompts, speed
from proxying.figures import Figure, table
from proxying.rivals import Place
from proxying.setting import answer_ids, tokenizer_folder

PARTS = ("speed", "latency", "crowd", "long_prompts")


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """The parts that are asked for."""
    tokenizer = tokenizer_folder(arguments.work)
    ids = answer_ids(tokenizer, arguments.work)
    place = Place(work=arguments.work, tokenizer=tokenizer, ids=ids)
    found: list[Figure] = []
    for part in arguments.only:
        print(f"{part} …", file=sys.stderr)
        if part == "speed":
            found += speed.measure(place, arguments.litellm, arguments.quick)
        elif part == "latency":
            found += latency.measure(place, arguments.quick)
        elif part == "crowd":
            found += crowd.measure(place, arguments.quick)
        else:
            found += long_prompts.measure(place, arguments.quick)
    return found


def main() -> None:
    """Measure, print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", type=Path, default=None, help="its environment's Python")
    parser.add_argument("--work", type=Path, default=Path("work/proxy"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = measure(arguments)
    if arguments.json:
        print(json.dumps([{**asdict(one), "missed": one.missed} for one in figures]))
    else:
        print(table(figures))
    sys.exit(any(one.missed for one in figures))


if __name__ == "__main__":
    main()
