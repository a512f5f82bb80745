"""The processes of a measurement: started, asked for their port, and what they have used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_BENCHMARKS = Path(__file__).resolve().parents[1]
_STOP_S = 10.0


def environment() -> dict[str, str]:
    """Where our modules are, and one thread for each library."""
    paths = [str(_BENCHMARKS), str(_BENCHMARKS.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


class Process:
    """A running process; `port` is where it listens."""

    def __init__(self, running: subprocess.Popen[str], port: int) -> None:
        self.running, self.port = running, port

    @property
    def cpu_s(self) -> float:
        """What it and its children have used so far."""
        return sum(_cpu_s(pid) for pid in self.pids)

    @property
    def pids(self) -> list[int]:
        """Its own, then its children's."""
        own = self.running.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    @property
    def most_rss_mib(self) -> float:
        """The most memory that it has held so far."""
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def line(self) -> Any:
        """The next line that it prints, which is JSON."""
        return json.loads(_line(self.running))


@contextmanager
def module(name: str, *arguments: object) -> Iterator[Process]:
    """One of ours, which prints its port first."""
    command = [sys.executable, "-m", f"proxying.{name}", *map(str, arguments)]
    with _running(command, stdout=subprocess.PIPE) as running:
        line = _line(running)
        if not line.strip().isdigit():
            raise RuntimeError(f"{name} didn't start")
        yield Process(running, int(line))


@contextmanager
def command(words: Sequence[str], port: int, *, log: Path, **variables: str) -> Iterator[Process]:
    """Somebody else's program, which listens at `port` when it is ready."""
    with (
        log.open("w") as file,
        _running(words, stdout=file, stderr=file, **variables) as running,
    ):
        _until_listening(running, port)
        yield Process(running, port)


def load(port: int, model: str, **options: object) -> dict[str, Any]:
    """What the clients of `proxying.load` saw. Raises RuntimeError for errors."""
    with load_beside(port, model, **options) as running:
        return outcome(running)


@contextmanager
def load_beside(port: int, model: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """The same beside other work; `outcome` waits for its end."""
    words = [sys.executable, "-m", "proxying.load", "--port", str(port), "--model", model]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    with _running(words, stdout=subprocess.PIPE) as running:
        yield running


def outcome(running: subprocess.Popen[str]) -> dict[str, Any]:
    """What a load saw, at its end. Raises RuntimeError when it failed."""
    text, _ = running.communicate()
    if running.returncode:
        raise RuntimeError("the clients failed")
    found: dict[str, Any] = json.loads(text)
    return found


@contextmanager
def _running(
    words: Sequence[str], stdout: Any, stderr: Any = None, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        list(words), stdout=stdout, stderr=stderr, text=True, env={**environment(), **variables}
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _line(running: subprocess.Popen[str]) -> str:
    return running.stdout.readline() if running.stdout else ""


def _until_listening(running: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{running.args!r} didn't start") from None
            time.sleep(0.2)
        else:
            return


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
