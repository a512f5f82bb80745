"""Promise: Triton and the proxy, each a process of its own as in their containers, are one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from stack import tritonservers
from waiting import until

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions
from builder.targets.openvino import build
from triton_repo.launch import processes
from triton_repo.launch.ports import free_ports
from triton_repo.layout import write_repository

pytestmark = pytest.mark.triton

NAME = "tiny"
READY = Path(__file__).parents[2] / "docker" / "ready.py"
PORTS = ("grpc", "http", "metrics", "proxy")


@pytest.fixture(scope="module")
def repository(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    convert(tiny_models["llama"], root / "checkpoint", options=ConvertOptions(dtype="float32"))
    limits = LimitOptions(max_batch_size=4, max_num_tokens=64, kv_cache_gib=0.01)
    build(root / "checkpoint", root / "engine", options=limits)
    write_repository(root / "engine", root / "repository", name=NAME)
    return root / "repository"


def some_ports() -> dict[str, int]:
    return dict(zip(PORTS, free_ports("127.0.0.1", len(PORTS)), strict=True))


@dataclass
class Parts:
    """The two commands, started and stopped as containers are."""

    repository: Path
    log: Path
    ports: dict[str, int] = field(default_factory=some_ports)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_triton(self) -> subprocess.Popen[bytes]:
        ports = (
            word
            for name in ("grpc", "http", "metrics")
            for word in (f"--{name}-port", str(self.ports[name]))
        )
        return self._start("--only", "triton", "--log", str(self.log), *ports)

    def start_proxy(self) -> subprocess.Popen[bytes]:
        address = f"127.0.0.1:{self.ports['grpc']}"
        port = str(self.ports["proxy"])
        return self._start("--only", "proxy", "--triton", address, "--port", port)

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "trtbuild", "serve", str(self.repository), *options]
        self.started.append(subprocess.Popen(command))
        return self.started[-1]

    def url(self, part: str) -> str:
        path = "/health" if part == "proxy" else "/v2/models/tensorrt_llm/ready"
        return f"http://127.0.0.1:{self.ports['proxy' if part == 'proxy' else 'http']}{path}"

    def status(self, part: str) -> int | None:
        """What the part's health says, None where nobody answers."""
        try:
            with urllib.request.urlopen(self.url(part), timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def ask(self) -> str | None:
        """The finish reason of an answer."""
        base_url = f"http://127.0.0.1:{self.ports['proxy']}/v1"
        with OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60) as client:
            answer = client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "hi"}], max_tokens=8
            )
        return answer.choices[0].finish_reason


@pytest.fixture
def parts(repository: Path, tmp_path: Path) -> Iterator[Parts]:
    found = Parts(repository=repository, log=tmp_path / "triton.log")
    yield found
    for process in found.started:
        process.terminate()
    for process in found.started:
        process.wait(60)


def ready(*urls: str) -> int:
    """The exit code of the containers' health check."""
    return subprocess.run([sys.executable, "-I", "-S", READY, *urls], check=False).returncode


def test_a_proxy_waits_for_its_triton_and_finds_it_again_whatever_dies(parts: Parts) -> None:
    parts.start_proxy()
    until(lambda: parts.status("proxy") == 503, 120)
    assert ready(parts.url("proxy")) == 1
    with pytest.raises(openai.InternalServerError) as refused:
        parts.ask()
    assert refused.value.status_code == 503

    triton = parts.start_triton()
    until(lambda: parts.status("proxy") == 200, 120)
    # Triton opens its HTTP port a moment after gRPC, which the proxy asks
    until(lambda: ready(parts.url("proxy"), parts.url("triton")) == 0, 120)
    assert parts.ask() in ("length", "stop")

    [server] = tritonservers(triton.pid)
    os.kill(server, signal.SIGKILL)
    until(lambda: tritonservers(triton.pid) not in ([server], []), 120)
    until(lambda: parts.status("proxy") == 200, 120)
    assert parts.ask() in ("length", "stop")

    [server] = tritonservers(triton.pid)
    triton.kill()
    triton.wait()
    until(lambda: processes.read(server) is None, 120)
    assert parts.status("proxy") == 503
    parts.start_triton()
    until(lambda: parts.status("proxy") == 200, 120)
    assert parts.ask() in ("length", "stop")


def test_each_part_ends_in_order_when_it_is_told_to(parts: Parts) -> None:
    triton, proxy = parts.start_triton(), parts.start_proxy()
    until(lambda: parts.status("proxy") == parts.status("triton") == 200, 120)
    [server] = tritonservers(triton.pid)
    proxy.terminate()
    assert proxy.wait(60) == 0
    assert parts.status("triton") == 200
    triton.terminate()
    assert triton.wait(60) == 0
    assert processes.read(server) is None
    assert "successfully unloaded 'tensorrt_llm'" in parts.log.read_text()


def test_a_triton_that_is_still_starting_ends_when_it_is_told_to(parts: Parts) -> None:
    triton = parts.start_triton()
    until(lambda: tritonservers(triton.pid), 120)
    below = processes.descendants(triton.pid)  # a stub that is being forked is a tritonserver too
    triton.terminate()
    assert triton.wait(60) == 0
    assert not [each for each in below if processes.read(each.pid)]


def test_a_triton_whose_port_is_taken_says_so(parts: Parts) -> None:
    with socket.create_server(("127.0.0.1", parts.ports["grpc"])):
        assert parts.start_triton().wait(120) == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--only", "proxy"), "--only proxy needs --triton HOST:PORT"),
        (("--only", "proxy", "--triton", "host"), "--only proxy needs --triton HOST:PORT"),
        (("--only", "proxy", "--grpc-port", "1"), "--grpc-port has no meaning with --only proxy"),
        (("--only", "proxy", "--log", "x"), "--log has no meaning with --only proxy"),
        (("--only", "triton", "--port", "1"), "--port has no meaning with --only triton"),
        (("--only", "triton", "--triton", "h:1"), "--triton has no meaning with --only triton"),
        (("--triton", "h:1"), "--triton has no meaning without --only proxy"),
        (("--only", "nothing"), "'nothing' is not one of"),
    ],
)
def test_options_of_the_other_part_are_refused(
    repository: Path, options: tuple[str, ...], complaint: str
) -> None:
    command = [sys.executable, "-m", "trtbuild", "serve", str(repository), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert complaint in result.stderr


@pytest.mark.parametrize("only", [(), ("--only", "triton")])
def test_a_triton_that_cannot_run_the_engine_is_refused_before_it_starts(
    repository: Path, tmp_path: Path, only: tuple[str, ...]
) -> None:
    """NVIDIA's tritonserver is a stand-in: a file beside its backends."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "backends" / "tensorrtllm").mkdir(parents=True)
    (tmp_path / "bin" / "tritonserver").touch(mode=0o755)
    result = subprocess.run(
        [sys.executable, "-m", "trtbuild", "serve", str(repository), *only],
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "runs no openvino engine" in result.stderr
    assert "starting Triton" not in result.stderr
