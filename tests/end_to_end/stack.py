"""The whole stack, as a user starts it: `trtbuild up` on the real model, a real Triton."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from openai import OpenAI

from triton_repo.launch import processes
from triton_repo.launch.ports import free_ports

NAME = "smollm2"
READY_S = 240


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running `trtbuild up`."""

    process: subprocess.Popen[bytes]
    url: str
    work: Path

    @cached_property
    def client(self) -> OpenAI:
        """A client that never tries twice: a failure is to be seen."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    @property
    def engine(self) -> Path:
        """The engine's folder, the tokenizer in it."""
        return self.work / NAME / "engine"

    def healthy(self) -> bool:
        """What /health says; False when nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def wait_healthy(self, ready_s: float) -> None:
        """Until /health says yes."""
        deadline = time.monotonic() + ready_s
        while not self.healthy():
            assert self.process.poll() is None, "trtbuild up has ended"
            assert time.monotonic() < deadline, "not ready in time"
            time.sleep(0.1)

    def processes(self, name: str) -> list[int]:
        """The processes of this stack whose program is `name`, whoever their parent is."""
        return [pid for pid in _pids() if _program(pid) == name and self._owns(pid)]

    def _owns(self, pid: int) -> bool:
        """Every process of a stack inherits its environment."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return f"TRTBUILD_TEST_STACK={self.url}".encode() in environment.split(b"\0")


def tritonservers(ancestor: int) -> list[int]:
    """Those below a process; a stub that one is just forking still has its name, and is none."""
    named = [each for each in processes.descendants(ancestor) if each.name == processes.SERVER]
    parents = {each.pid for each in named}
    return [each.pid for each in named if each.parent not in parents and not each.dead]


@contextmanager
def running(model: Path, work: Path, *options: str, ready_s: float = READY_S) -> Iterator[Stack]:
    """A stack while the body runs; it stops in good order, or is killed after a minute."""
    with _stopped(start(model, work, *options, ready_s=ready_s)) as stack:
        yield stack


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[Stack]:
    """The same of a repository that there is, by `trtbuild serve`."""
    with _stopped(_started(["serve", str(repository), *options], repository, READY_S)) as stack:
        yield stack


@contextmanager
def _stopped(stack: Stack) -> Iterator[Stack]:
    try:
        yield stack
    finally:
        stack.client.close()
        stack.process.terminate()
        try:
            stack.process.wait(60)
        except subprocess.TimeoutExpired:
            stack.process.kill()
            raise


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _program(pid: int) -> str:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:
        return ""


def start(model: Path, work: Path, *options: str, ready_s: float = READY_S) -> Stack:
    """`trtbuild up` on a free port, until it is ready."""
    command = ["up", str(model), "--work", str(work), "--name", NAME, *options]
    return _started(command, work, ready_s)


def _started(command: list[str], work: Path, ready_s: float) -> Stack:
    [port] = free_ports("127.0.0.1", 1)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "trtbuild", *command, "--port", str(port)],
        env={**os.environ, "TRTBUILD_TEST_STACK": url},
    )
    stack = Stack(process=process, url=url, work=work)
    try:
        stack.wait_healthy(ready_s)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return stack
