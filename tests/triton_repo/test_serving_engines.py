"""Promise: an engine for GPUs is held against the machine before Triton starts, with all its ranks.

No engine runs here; the last test ends where Triton would start.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from tiny_engine import make_engine

from builder import fit, machine
from builder.errors import LaunchError
from triton_repo.launch import preflight
from triton_repo.launch.ports import free_ports
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from trtbuild import endpoint


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Of an engine by trtllm-build, as far as its files' names go."""
    engine = make_engine(tmp_path / "engine", files=("rank0.engine",), target="tensorrt-llm")
    write_repository(engine, tmp_path / "repo")
    return tmp_path / "repo"


def serve(repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trtbuild", "serve", str(repository), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("options", [(), ("--only", "triton")])
def test_an_engine_that_this_machine_cannot_run_is_refused_in_a_line(
    repository: Path, options: tuple[str, ...]
) -> None:
    result = serve(repository, *options)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("trtbuild: ")
    assert "no NVIDIA GPU" in line
    assert not repository.with_name("repo.triton.log").exists()


def test_the_proxy_needs_no_gpu_beside_it(repository: Path) -> None:
    """Its Triton is another container's; with a port that is taken it ends where it would start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = serve(repository, "--only", "proxy", "--triton", "127.0.0.1:1", "--port", port)
    assert result.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in result.stderr


@pytest.mark.parametrize("part", ["whole", "triton"])
def test_every_rank_of_the_engine_is_started(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that passes for one with the GPUs, up to the start itself."""
    folder = make_engine(tmp_path / "engine", files=("rank0.engine", "rank1.engine"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"world_size": 1', '"world_size": 2'))
    write_repository(folder, tmp_path / "repo")
    seen: list[LaunchConfig] = []

    def start(self: Triton) -> None:
        seen.append(self.config)
        raise LaunchError("enough")

    monkeypatch.setattr(fit, "refuse_misfit", lambda engine: None)
    monkeypatch.setattr(machine, "gpus", lambda: [object(), object()])
    monkeypatch.setattr(preflight, "check_backend", lambda target: None)
    monkeypatch.setattr(preflight, "check_ranks", lambda ranks, say: say(f"{ranks} ranks"))
    monkeypatch.setattr(Triton, "start", start)
    [port] = free_ports("127.0.0.1", 1)
    options = endpoint.TritonOptions(log=tmp_path / "log", grpc_port=port, start_timeout_s=1200)
    run = partial(endpoint.run, host="127.0.0.1", port=0)
    if part == "triton":
        run = partial(endpoint.run_triton, host="0.0.0.0")
    with pytest.raises(LaunchError, match="enough"):
        run(tmp_path / "repo", options=options)
    [config_used] = seen
    assert config_used.world_size == 2
    assert not config_used.model_control
    # beyond this machine nobody controls it without the key
    assert bool(config_used.admin_key) == (part == "triton")
    assert (config_used.grpc_port, config_used.start_timeout_s) == (port, 1200)
    assert config_used.host == ("127.0.0.1" if part == "whole" else "0.0.0.0")
