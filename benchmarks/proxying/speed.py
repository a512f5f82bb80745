"""Tokens per second of the proxy's own CPU time, beside other proxies under the same load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proxying import rivals
from proxying.figures import Figure
from proxying.processes import Process, load
from proxying.rivals import Place
from proxying.setting import MODEL, answer_text
from proxying.text import streamed_text

CLIENTS, TOKENS = 64, 256
OF_ONE_WORD = ("writer", "litellm")
"""Whose engine has no tokens: each event is one word."""
STEP_MS, BURST = 8.0, 8
ONE_BY_ONE, QUEUED = 25_000, 40_000
OVER_LITELLM, OVER_PLAIN, OF_ONE_WORKER = 5.0, 2.0, 0.85


@dataclass(frozen=True, kw_only=True)
class Run:
    """One load through one proxy."""

    tokens: int
    events: int
    cpu_s: float
    wall_s: float
    engine_cpu_s: float
    clients_cpu_s: float

    @property
    def per_cpu_s(self) -> float:
        """Tokens per second of the proxy's CPU time."""
        return self.tokens / max(self.cpu_s, 1e-3)


@dataclass(kw_only=True)
class Case:
    """A proxy before an engine, and what it did."""

    name: str
    proxy: Process
    engine: Process
    requests: int
    runs: list[Run] = field(default_factory=list)

    def check(self, expected: str) -> None:
        """Raises RuntimeError where the streamed text isn't the engine's tokens'."""
        found = streamed_text(self.proxy.port, TOKENS)
        if found != expected:
            raise RuntimeError(f"{self.name}: the text is {found[:200]!r}…")

    def run(self) -> None:
        """One round. Raises RuntimeError where an answer wasn't right."""
        proxy_s, engine_s = self.proxy.cpu_s, self.engine.cpu_s
        found = load(
            self.proxy.port, MODEL, clients=CLIENTS, requests=self.requests, max_tokens=TOKENS
        )
        if found["errors"]:
            raise RuntimeError(f"{self.name}: {found['errors'][0]}")
        self.runs.append(
            Run(
                tokens=found["tokens"],
                events=found["events"],
                cpu_s=self.proxy.cpu_s - proxy_s,
                wall_s=found["wall_s"],
                engine_cpu_s=self.engine.cpu_s - engine_s,
                clients_cpu_s=found["cpu_s"],
            )
        )

    @property
    def best(self) -> Run:
        """The fastest: what else the machine does only slows down."""
        return max(self.runs, key=lambda run: run.per_cpu_s)

    @property
    def note(self) -> str:
        """What else there is to know of it."""
        best = self.best
        microseconds = 1e6 / best.tokens
        return (
            f"{best.cpu_s * microseconds:.1f} us/token; {best.tokens / best.wall_s:,.0f} tokens/s "
            f"of wall; {best.tokens / best.events:.2f} tokens an event; us/token of the engine "
            f"{best.engine_cpu_s * microseconds:.1f}, of the clients "
            f"{best.clients_cpu_s * microseconds:.1f}"
        )


@contextmanager
def cases(place: Place, litellm: Path | None, quick: bool) -> Iterator[list[Case]]:
    """Every proxy, warmed up."""
    few, many = (1, 2) if quick else (2, 4)
    with ExitStack() as stack:
        steps = stack.enter_context(rivals.triton(place, "--step-ms", STEP_MS))
        burst = stack.enter_context(
            rivals.triton(place, "--step-ms", STEP_MS * BURST, "--burst", BURST)
        )
        flood = stack.enter_context(rivals.triton(place, "--step-ms", 0))
        found = [
            Case(name=name, proxy=stack.enter_context(proxy), engine=engine, requests=requests)
            for name, proxy, engine, requests in (
                ("ours", rivals.ours(place, steps), steps, many),
                ("queued", rivals.ours(place, burst), burst, many),
                ("flooded", rivals.ours(place, flood), flood, 3 * many),
                ("workers", rivals.ours(place, steps, workers=2), steps, many),
                *([("plain", rivals.plain(place, steps), steps, many)] * rivals.has_plain()),
            )
        ]
        writer = stack.enter_context(rivals.writer(STEP_MS))
        found.append(Case(name="writer", proxy=writer, engine=steps, requests=many))
        if litellm:
            proxy = stack.enter_context(rivals.litellm(place, litellm, STEP_MS))
            found.append(Case(name="litellm", proxy=proxy, engine=steps, requests=few))
        yield found


def measure(place: Place, litellm: Path | None, quick: bool) -> list[Figure]:
    """All proxies in turns."""
    with cases(place, litellm, quick) as found:
        expected = answer_text(place.tokenizer, place.ids, TOKENS)
        for case in found:
            if case.name not in OF_ONE_WORD:
                case.check(expected)
        for turn in range(2 if quick else 4):
            for case in found:
                case.run()
                if turn == 0:  # warms up
                    case.runs.clear()
        return list(figures({case.name: case for case in found}))


def figures(case: dict[str, Case]) -> Iterator[Figure]:
    """Absolute ones, then ratios."""
    ours = case["ours"].best.per_cpu_s
    own: Sequence[tuple[str, str, float | None]] = (
        ("ours", "one token a message, 64 clients", ONE_BY_ONE),
        ("queued", f"messages queue by {BURST}", QUEUED),
        ("flooded", "messages queue without end", None),
        ("workers", "one token a message, 2 workers", None),
        ("writer", "no proxy, an endpoint that only writes", None),
        ("plain", "the plain proxy", None),
        ("litellm", "LiteLLM's proxy", None),
    )
    for name, what, least in own:
        if name in case:
            one = case[name]
            value, note = one.best.per_cpu_s, one.note
            yield Figure(name=what, value=value, unit="tokens/CPU-s", least=least, note=note)
    for name, what, least in (
        ("workers", "2 workers by one", OF_ONE_WORKER),
        ("plain", "by the plain proxy", OVER_PLAIN),
        ("litellm", "by LiteLLM's proxy", OVER_LITELLM),
    ):
        if name in case:
            other = case[name].best.per_cpu_s
            value = other / ours if name == "workers" else ours / other
            yield Figure(name=what, value=value, unit="x", least=least)
