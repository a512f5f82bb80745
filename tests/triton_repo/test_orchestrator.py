"""Promise: orchestrator mode starts as upstream's launcher starts it; a worker's death is noticed.

A real tritonserver under a real Open MPI; the backend is a stand-in that starts a worker as
NVIDIA's does, by its name alone. That NVIDIA's orchestrator answers is not tested.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import mpirun as stand_in
import pytest
from test_ranks import LEADER, OURS, WORKER, lone_engine
from waiting import until

from triton_repo.launch import processes, ranks
from triton_repo.launch.binary import TritonServer
from triton_repo.launch.command import LaunchConfig, Ports, arguments
from triton_repo.launch.triton import Triton

OPEN_MPI = Path(sys.executable).with_name("mpirun")
SERVER = TritonServer(
    path=Path("/opt/tritonserver/bin/tritonserver"), backends=Path("/opt/tritonserver/backends")
)
POOLS = {
    "--pinned-memory-pool-byte-size=0",
    "--enable-peer-access=false",
    "--cuda-memory-pool-byte-size=0:0",
    "--cuda-memory-pool-byte-size=1:0",
}
"""upstream's add_multi_model_config on a machine with two GPUs"""

BACKEND = """
import os, shutil, subprocess, sys
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        assert os.environ["TRTLLM_ORCHESTRATOR"] == "1"
        assert os.environ["TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES"] == "1"
        assert os.environ["OMPI_COMM_WORLD_SIZE"] == "1"
        worker = os.path.join(os.environ["WORKERS"], "trtllmExecutorWorker")
        shutil.copy("/bin/sleep", worker)
        subprocess.Popen([worker, "600"])
"""


@pytest.fixture
def config(tmp_path: Path) -> LaunchConfig:
    return LaunchConfig(
        repository=Path("/repo"),
        log_path=tmp_path / "log",
        host="0.0.0.0",
        python_backends={},
        orchestrator=True,
        gpus=2,
    )


def commands(config: LaunchConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The flags of each rank; mpirun's own are checked by its stand-in."""
    mpirun = stand_in.install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    ports = Ports(http=8000, grpc=8001, metrics=8002)
    words = arguments(config, SERVER, ports, backends=None, shm_prefix="p", gpu=True)
    assert words[0] == str(mpirun)
    _, found = stand_in.parse(words[1:])
    assert all(command[0] == str(SERVER.path) for command in found)
    return [set(command[1:]) for command in found]


def test_a_lone_orchestrator_is_upstreams_multi_model(
    config: LaunchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [command] = commands(config, tmp_path / "bin", monkeypatch)
    assert command >= LEADER | POOLS
    assert {word.partition("=")[0] for word in command - LEADER - POOLS} == set(OURS)


def test_ranks_that_are_there_already_are_upstreams_disable_spawn_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LaunchConfig(
        repository=Path("/repo"),
        log_path=tmp_path / "log",
        host="0.0.0.0",
        python_backends={},
        orchestrator=True,
        world_size=5,
        engine_models=("tensorrt_llm", "tensorrt_llm_2"),
    )
    first, *others = commands(config, tmp_path / "bin", monkeypatch)
    assert first >= LEADER
    assert not any("--load-model" in word or "pool" in word for word in first)
    assert len(others) == 4
    for command in others:
        assert command >= WORKER | {"--load-model=tensorrt_llm_2"}


@pytest.mark.triton
@pytest.mark.skipif(not OPEN_MPI.is_file(), reason="Open MPI is not installed")
def test_a_worker_that_dies_ends_all_and_all_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{OPEN_MPI.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMPI_MCA_rmaps_base_oversubscribe", "1")
    monkeypatch.setenv("WORKERS", str(tmp_path))
    config = LaunchConfig(
        repository=lone_engine(tmp_path),
        log_path=tmp_path / "log",
        python_backends={"tensorrtllm": BACKEND},
        orchestrator=True,
        grace_s=1,
        backoff_s=0.1,
    )
    events: list[str] = []
    with Triton(config, on_event=events.append) as triton:
        [worker] = ranks.workers(os.getpid())
        assert ranks.running(os.getpid()) == {0: triton.pid}
        os.kill(worker, signal.SIGKILL)
        until(lambda: triton.restarts == 1, 120)
        assert f"a worker of the engine died (process {worker})" in events[0]
        [worker] = ranks.workers(os.getpid())
    assert (left := processes.read(worker)) is None or left.dead
