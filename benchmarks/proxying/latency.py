"""What the proxy adds to one client's tokens over a bare gRPC client, in turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from proxying import rivals
from proxying.figures import Figure
from proxying.processes import Process, environment, load
from proxying.rivals import Place
from proxying.setting import MODEL

TOKENS, REQUESTS, STEP_MS = 64, 8, 6.0
MOST_FIRST_MS, MOST_LATER_MS = 0.5, 0.15


def measure(place: Place, quick: bool) -> list[Figure]:
    """Medians over all requests, and over all their later tokens."""
    first: dict[str, list[float]] = {"bare": [], "ours": []}
    later: dict[str, list[float]] = {"bare": [], "ours": []}
    with (
        rivals.triton(place, "--step-ms", STEP_MS, "--own-steps", "--stamps") as engine,
        rivals.ours(place, engine) as proxy,
    ):
        for turn in range(4 if quick else 12):
            for name in ("bare", "ours"):
                found = (
                    _bare(engine)
                    if name == "bare"
                    else load(proxy.port, MODEL, clients=1, requests=REQUESTS, max_tokens=TOKENS)
                )
                sent = [engine.line() for _ in range(REQUESTS)]
                if turn == 0:  # warms up
                    continue
                first[name] += found["first_s"]
                for came, left in zip(found["received"], sent, strict=True):
                    if len(came) == len(left):
                        later[name] += [a - b for a, b in zip(came[1:], left[1:], strict=True)]
    return [
        _added("added to the first token", first, MOST_FIRST_MS),
        _added("added to each later one", later, MOST_LATER_MS),
    ]


def _added(name: str, times: dict[str, list[float]], most: float) -> Figure:
    bare, ours = (1e3 * statistics.median(times[which]) for which in ("bare", "ours"))
    calm = [1e3 * statistics.quantiles(times[which], n=20)[0] for which in ("bare", "ours")]
    note = (
        f"median {ours:.2f} ms, of a bare gRPC client {bare:.2f} ms; 5th percentiles "
        f"{calm[1]:.2f} and {calm[0]:.2f} ms; {len(times['ours'])} times"
    )
    return Figure(name=name, value=ours - bare, unit="ms", most=most, note=note)


def _bare(engine: Process) -> dict[str, Any]:
    words = [sys.executable, "-m", "proxying.bare", "--port", str(engine.port)]
    words += ["--requests", str(REQUESTS), "--max-tokens", str(TOKENS)]
    done = subprocess.run(words, env=environment(), stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
