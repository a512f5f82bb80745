"""Thousands of streams at once: errors, memory, and whether each gets its share."""

from __future__ import annotations

from proxying import rivals
from proxying.figures import Figure
from proxying.processes import load
from proxying.rivals import Place
from proxying.setting import MODEL

STREAMS, STEP_MS, RAMP_S = 2000, 400.0, 8.0
MOST_MIB, MOST_SPREAD = 400.0, 3.0


def measure(place: Place, quick: bool) -> list[Figure]:
    """All streams run at once for a while: the last begins before the first ends."""
    tokens = 40 if quick else 60
    with (
        rivals.triton(place, "--step-ms", STEP_MS, "--own-steps") as engine,
        rivals.ours(place, engine) as proxy,
    ):
        found = load(
            proxy.port, MODEL, clients=STREAMS, requests=1, max_tokens=tokens, ramp_s=RAMP_S
        )
        memory = proxy.most_rss_mib
    gaps = {name: 1e3 * value for name, value in found["gaps_s"].items()}
    note = f"{found['tokens']:,} tokens; " + (found["errors"] or ["none"])[0]
    spread = f"p50 {gaps['p50']:.0f} ms, p99 {gaps['p99']:.0f} ms, longest {gaps['max']:.0f} ms"
    return [
        Figure(
            name=f"{STREAMS:,} streams: errors",
            value=len(found["errors"]),
            unit="",
            most=0,
            note=note,
        ),
        Figure(name="their memory at most", value=memory, unit="MiB", most=MOST_MIB),
        Figure(
            name="their p99 ITL by p50",
            value=gaps["p99"] / gaps["p50"],
            unit="x",
            most=MOST_SPREAD,
            note=spread,
        ),
    ]
