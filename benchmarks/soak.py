"""Many streams for minutes on a real Triton: no wrong token, no leak, no slot kept.

`--streams` clients ask without a pause what `soaking.cases` makes up: greedy and sampled answers,
limits, end ids, stop words, adapters, prompts of all sizes, and what else the engine knows, and of
the models that take text whole texts and streams, with stop strings; some are cancelled at once or
midway, some stopped by request id, some refused. Each answer is held against the one that the same
server gave while nobody else asked. One that leaves its way is settled by the engine's own logits
at that place: a near tie (`soaking.judge.NEAR_TIE`) may change places with the company in a batch,
a draw may fall on the neighbour of the token that it fell on, anything else is a wrong token.
Meanwhile memory, descriptors, threads and shared memory of tritonserver and its models' processes
are sampled: after `--warm-up` memory may grow by 5 %. At the end every slot and KV block must be
free. Then `--waiting` requests are sent at once: each must be answered, in the same memory. Whether
the model unloads in the end is told, not judged: Triton 2.51 keeps for ever a request whose stream
its client cancelled just as the final response came, which a random cancel may do.

    python benchmarks/soak.py [--minutes 5] [--warm-up 2] [--streams 200] [--waiting 2000] [--json]

The engine (`--engine DIR` takes another) is a tiny float32 one, with a KV cache for a part of its
batch only, so that requests are preempted all the time. Exit code 1 on any violation.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from soaking.cases import ADAPTERS, LONGEST, Answer, Case, Pool, ask, pool
from soaking.judge import SHOWN, Verdict, settle
from soaking.watch import Course, Watch, course
from tiny_llama import ADAPTER_RANK, tiny_adapter, tiny_engine
from token_client import MODEL, TEXT_MODELS, TokenClient, request
from tritonclient.grpc import service_pb2, service_pb2_grpc

from builder.limits import LimitOptions
from builder.targets.openvino_options import EngineOptions
from triton_repo.launch import processes
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository

LIMITS = LimitOptions(max_batch_size=64, max_num_tokens=256, kv_cache_gib=0.005)
"""Of the tiny engine: 160 blocks of KV cache, where a full batch wants some 300."""
CANCELLED, STOPPED, REFUSED, PAUSED = 0.15, 0.03, 0.03, 0.1
"""Shares of the requests."""
ANSWER_S, IN_LINE_S = 120.0, 600.0
"""A request that takes longer hangs: one among the streams, one in a long line."""
GROWTH = 0.05
FREE = {
    "nv_trt_llm_request_metrics request_type=active",
    "nv_trt_llm_request_metrics request_type=scheduled",
    "nv_trt_llm_request_metrics request_type=waiting",
    "nv_trt_llm_kv_cache_block_metrics kv_cache_block_type=used",
}
"""Gauges that are zero when nobody asks."""


@dataclass(kw_only=True)
class Found:
    """All that came out."""

    verdict: Verdict = field(default_factory=Verdict)
    refused: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    courses: dict[str, Course] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    waiting: dict[str, float] = field(default_factory=dict)
    unloads: bool = False


class Crowd:
    """The clients: each asks, judges, asks again."""

    def __init__(self, client: TokenClient, cases: Pool, found: Found) -> None:
        self._client, self._pool, self._found = client, cases, found
        self._numbers = itertools.count()

    async def run(self, streams: int, seconds: float) -> None:
        """Until the time is over and every answer is there."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._one(number, until) for number in range(streams)))

    async def at_once(self, count: int) -> None:
        """So many requests together, one each."""
        rng = random.Random(count)
        cases = rng.choices(self._pool.cases, k=count)
        asking = (self._guarded(self._whole(case, None), IN_LINE_S) for case in cases)
        await asyncio.gather(*asking)

    async def _one(self, number: int, until: float) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            if rng.random() < PAUSED:
                await asyncio.sleep(rng.random() / 10)
            chance, case = rng.random(), rng.choice(self._pool.cases)
            if chance < REFUSED:
                await self._guarded(self._refusal(rng.choice(self._pool.refused)))
            elif chance < REFUSED + STOPPED and case.model == MODEL:
                await self._guarded(self._stopped(case))
            elif chance < REFUSED + STOPPED + CANCELLED:
                await self._guarded(self._whole(case, rng.choice([0, 1, rng.randint(1, LONGEST)])))
            else:
                await self._guarded(self._whole(case, None))

    async def _guarded(self, asking: Any, limit_s: float = ANSWER_S) -> None:
        """A request that fails as none may, or hangs, is a violation; the others go on."""
        try:
            await asyncio.wait_for(asking, limit_s)
        except asyncio.TimeoutError:
            self._found.violations.append(f"a request had no end within {limit_s:g} s")
        except (grpc.aio.AioRpcError, EOFError, asyncio.InvalidStateError) as error:
            self._found.violations.append(f"a stream failed: {error!r}"[:300])
            await asyncio.sleep(1)

    async def _whole(self, case: Case, cut: int | None) -> None:
        if cut == 0:
            await self._at_once_gone(case)
            return
        got = await ask(self._client, case.wire(), cut=cut)
        self._found.verdict.add(case, got, cancelled=not got.over)

    async def _at_once_gone(self, case: Case) -> None:
        """A client that goes before anything has come."""
        asking = asyncio.ensure_future(ask(self._client, case.wire()))
        await asyncio.sleep(random.random() / 20)
        asking.cancel()
        try:
            got = await asking
        except asyncio.CancelledError:
            got = Answer()
        self._found.verdict.add(case, got, cancelled=not got.over)

    async def _stopped(self, case: Case) -> None:
        """Stopped by a second request with the same id, as upstream's clients do it."""
        name = f"stopped-{next(self._numbers)}"
        asking = asyncio.ensure_future(ask(self._client, case.wire(name)))
        await asyncio.sleep(random.random() / 5)
        await ask(self._client, request([1], 1, request_id=name, stop=True))
        got = await asking
        self._found.verdict.add(case, got, cancelled=True)

    async def _refusal(self, wire: bytes) -> None:
        got = await ask(self._client, wire)
        self._found.refused[got.error] += 1
        if not got.error:
            self._found.violations.append("a request that can't run was not refused")


async def soak(triton: Triton, arguments: argparse.Namespace, vocab: int, longest: int) -> Found:
    """All of it, on a Triton that runs."""
    found, client = Found(), TokenClient(triton.grpc_address)
    cases = await pool(client, vocab, longest, arguments.seed)
    for kind, words in cases.absent.items():
        say(f"not in the mix: {kind}: {words}")
    found.violations += [
        f"while all was quiet, {case.kind}: {case.expected.error or 'no final response'}"
        for case in cases.cases
        if case.expected.error or not case.expected.over
    ]
    say(f"{len(cases.cases)} answers are known; {arguments.streams} streams begin")
    watch = Watch(processes=watched(triton), metrics_address=triton.metrics_address)
    crowd, started = Crowd(client, cases, found), time.monotonic()
    await crowd.run(arguments.streams, 60 * (arguments.warm_up + arguments.minutes))
    found.seconds = time.monotonic() - started
    grown(found, watch, 60 * arguments.warm_up)
    await all_free(found, watch)
    if arguments.waiting:
        await wait_in_line(found, watch, crowd, arguments.waiting)
    watch.stop()
    if triton.restarts:
        found.violations.append(f"Triton was started again {triton.restarts} times")
    await settle(found.verdict, client)
    await client.close()
    found.unloads = await unloads(triton)
    return found


def watched(triton: Triton) -> dict[str, int]:
    """The processes that may not grow."""
    if triton.pid is None:
        raise RuntimeError("Triton has died")
    found = {"tritonserver": triton.pid}
    for stub in processes.stubs(triton.pid):
        command = Path(f"/proc/{stub.pid}/cmdline").read_text()
        found[next((model for model in TEXT_MODELS if f"/{model}/" in command), MODEL)] = stub.pid
    return found


def grown(found: Found, watch: Watch, warm_up_s: float) -> None:
    """Note the courses of what was sampled, and what grew."""
    # a pool of two threads may make its second one late
    allowed = {"rss_bytes": GROWTH, "descriptors": 0.05, "threads": 0.06, "shm_bytes": 0.0}
    for name in watch.processes:
        for what, most in allowed.items():
            key = f"{what} of {name}"
            seen = course(watch.samples, key, warm_up_s=warm_up_s)
            if seen is None:
                found.violations.append(f"{key}: too few samples")
                continue
            found.courses[key] = seen
            if seen.growth > most:
                found.violations.append(f"{key} grew from {seen.first:g} to {seen.last:g}")
    rss = f"rss_bytes of {MODEL}"
    found.memory = [(sample.at_s, sample.numbers[rss]) for sample in watch.samples]
    for key in {key for sample in watch.samples for key in sample.numbers}:
        if key.startswith("nv_trt_llm"):
            found.gauges[key] = max(sample.numbers.get(key, 0.0) for sample in watch.samples)


async def all_free(found: Found, watch: Watch) -> None:
    """Every slot and block is free, soon after the last answer."""
    kept: Mapping[str, float] = {}
    for _ in range(40):
        numbers = (await asyncio.to_thread(watch.take)).numbers
        kept = {name: numbers[name] for name in FREE if numbers.get(name)}
        if not kept:
            break
        await asyncio.sleep(0.25)
    found.violations += [f"{name} is still {value:g}" for name, value in kept.items()]
    found.violations += [f"the engine doesn't tell {name}" for name in FREE - numbers.keys()]


async def wait_in_line(found: Found, watch: Watch, crowd: Crowd, count: int) -> None:
    """Many more requests than slots: they wait, in the memory that is there; none is lost."""
    say(f"{count} requests at once")
    before, since = watch.take(), len(watch.samples)
    asked, started = sum(found.verdict.asked.values()), time.monotonic()
    await crowd.at_once(count)
    seconds = time.monotonic() - started
    during, after = watch.samples[since:] or [before], watch.take()
    answered = sum(found.verdict.asked.values()) - asked
    rss = f"rss_bytes of {MODEL}"
    waiting, used = "waiting", "used"
    gauges = {
        short: max(sample.numbers.get(name, 0.0) for sample in during)
        for short, name in (
            (waiting, "nv_trt_llm_request_metrics request_type=waiting"),
            (used, "nv_trt_llm_kv_cache_block_metrics kv_cache_block_type=used"),
        )
    }
    found.waiting = {
        "asked": count,
        "answered": answered,
        "seconds": seconds,
        "most_waiting": gauges[waiting],
        "most_blocks_used": gauges[used],
        "blocks": after.numbers.get(
            "nv_trt_llm_kv_cache_block_metrics kv_cache_block_type=max", 0.0
        ),
        "rss_growth": max(s.numbers[rss] for s in [*during, after]) / before.numbers[rss] - 1,
    }
    if answered != count:
        found.violations.append(f"of {count} requests at once, {answered} were answered")
    await all_free(found, watch)


async def unloads(triton: Triton) -> bool:
    """Whether the model unloads: Triton waits for ever for a request that it thinks under way."""
    async with grpc.aio.insecure_channel(triton.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await stub.RepositoryModelUnload(
            service_pb2.RepositoryModelUnloadRequest(model_name=MODEL), timeout=30
        )
        for _ in range(100):
            index = await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=30)
            if all(model.state != "UNLOADING" for model in index.models if model.name == MODEL):
                return True
            await asyncio.sleep(0.2)
    return False


def report(found: Found) -> dict[str, Any]:
    """All that is told, as JSON."""
    verdict = found.verdict
    asked = sum(verdict.asked.values())
    return {
        "seconds": found.seconds,
        "requests": asked,
        "requests_per_s": asked / found.seconds,
        "tokens_per_s": verdict.tokens / found.seconds,
        "kinds": {
            kind: {
                "asked": verdict.asked[kind],
                "right": verdict.right[kind],
                "cancelled": verdict.cancelled[kind],
                "near_ties": verdict.near_ties[kind],
                "near_draws": verdict.near_draws[kind],
            }
            for kind in sorted(verdict.asked)
        },
        "refused": dict(found.refused),
        "courses": {
            name: {"first": c.first, "last": c.last, "most": c.most, "growth": c.growth}
            for name, c in found.courses.items()
        },
        "gauges": found.gauges,
        "memory": [[round(at_s, 1), rss_bytes] for at_s, rss_bytes in found.memory],
        "waiting": found.waiting,
        "unloads": found.unloads,
        "violations": [*found.violations, *verdict.wrong],
    }


def table(told: Mapping[str, Any]) -> str:
    """The report as lines."""
    lines = [
        f"{told['requests']} requests in {told['seconds']:.0f} s "
        f"({told['requests_per_s']:.0f}/s, {told['tokens_per_s']:.0f} tokens/s), "
        f"{sum(told['refused'].values())} refused",
        f"{'kind':38} {'asked':>7} {'right':>7} {'cancelled':>9} {'near ties':>9} {'draws':>6}",
    ]
    lines += [
        f"{kind:38} {row['asked']:7} {row['right']:7} {row['cancelled']:9} "
        f"{row['near_ties']:9} {row['near_draws']:6}"
        for kind, row in told["kinds"].items()
    ]
    lines += [f"{'after the warm-up':30} {'first':>12} {'last':>12} {'growth':>7}"]
    lines += [
        f"{name:30} {c['first']:12.0f} {c['last']:12.0f} {c['growth']:7.1%}"
        for name, c in told["courses"].items()
    ]
    lines += [f"{name}: at most {value:g}" for name, value in sorted(told["gauges"].items())]
    if waited := told["waiting"]:
        lines.append("at once: " + ", ".join(f"{name} {v:.4g}" for name, v in waited.items()))
    lines.append(f"the model {'unloads' if told['unloads'] else 'does not unload'}")
    return "\n".join(lines)


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Soak, print, exit 1 on any violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=2.0, help="minutes, before those")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--waiting", type=int, default=2000)
    parser.add_argument("--engine", type=Path, default=None, help="take this engine")
    parser.add_argument("--work", type=Path, default=Path("work/soak"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    engine, adapters = arguments.engine, {}
    if engine is None:
        options = EngineOptions(max_beam_width=2, max_lora_rank=ADAPTER_RANK)
        engine = tiny_engine(arguments.work, limits=LIMITS, options=options)
        adapters = {
            f"adapter{task_id}": tiny_adapter(arguments.work / f"adapter{task_id}", seed=task_id)
            for task_id in ADAPTERS
        }
    config = json.loads((engine / "config.json").read_text())
    write_repository(engine, arguments.work / "repository", adapters=adapters)
    launch = LaunchConfig(
        repository=arguments.work / "repository",
        log_path=arguments.work / "triton.log",
        models=(MODEL, *TEXT_MODELS),
    )
    longest = min(400, config["build_config"]["max_seq_len"] - LONGEST - 8)
    with Triton(launch, on_event=say) as triton:
        found = asyncio.run(
            soak(triton, arguments, config["pretrained_config"]["vocab_size"], longest)
        )
    told = report(found)
    print(json.dumps(told) if arguments.json else table(told))
    violations = told["violations"]
    for line in [*violations[:SHOWN], f"{len(violations)} violations"][: len(violations) + 1]:
        say(line)
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
