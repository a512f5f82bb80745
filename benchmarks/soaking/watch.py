"""What Triton and its model's process hold: memory, descriptors, threads, shared memory, slots."""

from __future__ import annotations

import re
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PERIOD_S = 1.0
_METRIC = re.compile(r"^(nv_trt_llm_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A moment: seconds since the start, and numbers by name (`rss_bytes of stub`, …)."""

    at_s: float
    numbers: Mapping[str, float]


@dataclass(kw_only=True)
class Watch:
    """Samples of the processes (name → id) once a second, until it is stopped."""

    processes: Mapping[str, int]
    metrics_address: str
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()
        self._thread.join()

    def take(self) -> Sample:
        """A sample of now."""
        numbers = dict(read_metrics(self.metrics_address))
        for name, pid in self.processes.items():
            for what, value in read_process(pid).items():
                numbers[f"{what} of {name}"] = value
        return Sample(at_s=time.monotonic() - self._started, numbers=numbers)

    def _loop(self) -> None:
        while not self._stop.wait(PERIOD_S):
            try:
                self.samples.append(self.take())
            except OSError:
                # a process that has gone is found at the end
                return


def read_process(pid: int) -> dict[str, float]:
    """What /proc says of a process."""
    folder = Path("/proc") / str(pid)
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    regions = {
        line.split(maxsplit=5)[5]
        for line in (folder / "maps").read_text().splitlines()
        if "/dev/shm/" in line and not line.endswith("(deleted)")
    }
    return {
        "rss_bytes": int(status["VmRSS"].split()[0]) * 1024,
        "descriptors": len(list((folder / "fd").iterdir())),
        "threads": int(status["Threads"]),
        "shm_bytes": sum(Path(region).stat().st_size for region in regions),
    }


def read_metrics(address: str) -> dict[str, float]:
    """The engine's gauges by their labels: `nv_trt_llm_request_metrics request_type=active`."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found = {}
    for name, labels, value in _METRIC.findall(page):
        kept = [
            label
            for label in labels.replace('"', "").split(",")
            if not label.startswith(("model=", "version="))
        ]
        found[f"{name} {' '.join(kept)}".strip()] = float(value)
    return found


@dataclass(frozen=True, kw_only=True)
class Course:
    """A number over time: at first (after the warm-up), at last, and the most it was."""

    first: float
    last: float
    most: float

    @property
    def growth(self) -> float:
        """By how much of itself it grew."""
        return self.last / self.first - 1 if self.first else float(self.last > 0)


def course(
    samples: list[Sample],
    name: str,
    *,
    warm_up_s: float,
    pick: Callable[[list[float]], float] = statistics.median,
) -> Course | None:
    """A number's course: medians of the first and the last third after the warm-up."""
    values = [s.numbers[name] for s in samples if s.at_s >= warm_up_s and name in s.numbers]
    third = len(values) // 3
    if not third:
        return None
    return Course(first=pick(values[:third]), last=pick(values[-third:]), most=max(values))
