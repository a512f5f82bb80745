"""Promise: several ranks run as one server: upstream's command, one fate, nothing left behind.

Real tritonservers run here, under a real Open MPI where it is installed and under a stand-in of
mpirun (mpirun.py). That NVIDIA's backend joins them is not tested.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import mpirun as stand_in
import numpy as np
import pytest
from running import stream
from tiny_engine import make_engine
from waiting import until

from builder.errors import LaunchError, MissingToolError
from triton_repo.launch import preflight, processes, ranks
from triton_repo.launch.binary import TritonServer
from triton_repo.launch.command import LaunchConfig, Ports, arguments
from triton_repo.launch.triton import Triton
from triton_repo.layout import write_repository

# A rank that isn't the leader stays in its load until it is ended, as NVIDIA's backend has it stay.
BACKEND = """
import os, time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        while os.environ["OMPI_COMM_WORLD_RANK"] != "0":
            time.sleep(1)

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            ids = pb.get_input_tensor_by_name(request, "input_ids").as_numpy().reshape(1, 1, -1)
            sender.send(pb.InferenceResponse([pb.Tensor("output_ids", ids)]))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


OPEN_MPI = Path(sys.executable).with_name("mpirun")
"""Open MPI 4.1, from its wheel: the line that NVIDIA's container has (in HPC-X)."""


@pytest.fixture
def mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in; a test may ask for Open MPI instead."""
    script = stand_in.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return script


@pytest.fixture(params=["Open MPI", "stand-in"])
def either_mpirun(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Open MPI's mpirun where its wheel is installed, and the stand-in."""
    if request.param == "stand-in":
        found: Path = request.getfixturevalue("mpirun")
        return found
    if not OPEN_MPI.is_file():
        pytest.skip("Open MPI is not installed")
    monkeypatch.setenv("PATH", f"{OPEN_MPI.parent}{os.pathsep}{os.environ['PATH']}")
    # a machine that tests run on may have fewer cores than there are ranks
    monkeypatch.setenv("OMPI_MCA_rmaps_base_oversubscribe", "1")
    return OPEN_MPI


@pytest.fixture
def events() -> list[str]:
    return []


def lone_engine(folder: Path) -> Path:
    """A repository of `tensorrt_llm` alone, which starts and ends the sooner."""
    write_repository(make_engine(folder / "engine"), folder / "repo")
    for model in (folder / "repo").iterdir():
        if model.is_dir() and model.name != "tensorrt_llm":
            shutil.rmtree(model)
    return folder / "repo"


@pytest.fixture
def config(tmp_path: Path) -> LaunchConfig:
    return LaunchConfig(
        repository=lone_engine(tmp_path),
        log_path=tmp_path / "triton.log",
        python_backends={"tensorrtllm": BACKEND},
        world_size=2,
        grace_s=1,
        backoff_s=0.1,
    )


@pytest.fixture
def triton(either_mpirun: Path, config: LaunchConfig, events: list[str]) -> Iterator[Triton]:
    with Triton(config, on_event=events.append) as started:
        yield started


def ranks_of(triton: Triton) -> dict[int, int]:
    """Rank → tritonserver, from the outside: by the environment of this process's descendants."""
    found = ranks.running(os.getpid())
    assert all(processes.read(pid).name == "tritonserver" for pid in found.values())  # type: ignore[union-attr]
    return found


def answers(triton: Triton) -> bool:
    request = {
        "input_ids": np.array([[5, 6]], np.int32),
        "input_lengths": np.array([[2]], np.int32),
        "request_output_len": np.array([[2]], np.int32),
    }
    [response] = stream(triton, "tensorrt_llm", request)
    return bool(response.as_numpy("output_ids").reshape(-1).tolist() == [5, 6])


@pytest.mark.triton
def test_two_ranks_serve_as_one_and_leave_nothing_behind(
    either_mpirun: Path, config: LaunchConfig
) -> None:
    with Triton(replace(config, grace_s=5)) as triton:
        assert answers(triton)
        before = set(Path(tempfile.gettempdir()).glob("ompi.*"))
        old = ranks_of(triton)
        assert set(old) == {0, 1}
        assert triton.pid == old[0]
        command = Path(f"/proc/{old[0]}/cmdline").read_text()
        prefix = command.partition("region-prefix-name=")[2][:22]
        assert processes.mentioning(prefix)
    assert not processes.mentioning(prefix)
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    assert set(Path(tempfile.gettempdir()).glob("ompi.*")) <= before
    # the leader's end was an orderly one
    assert "successfully unloaded 'tensorrt_llm'" in config.log_path.read_text()


@pytest.mark.triton
@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_rank_ends_all_and_all_come_back(
    triton: Triton, events: list[str], rank: int
) -> None:
    old = ranks_of(triton)
    os.kill(old[rank], signal.SIGKILL)
    until(lambda: triton.restarts == 1, 120)
    assert not set(ranks_of(triton).values()) & set(old.values())
    assert set(ranks_of(triton)) == {0, 1}
    assert answers(triton)
    # mpirun may have ended the others before anyone looks
    assert re.match(rf"rank (0 and )?{rank}( and 1)? died|Triton died \(signal 9\)", events[0])


@pytest.mark.triton
def test_a_rank_whose_end_mpirun_takes_no_notice_of_ends_all_too(
    triton: Triton, events: list[str]
) -> None:
    """As when a rank exits with 0: the others would wait for it for ever."""
    old = ranks_of(triton)
    leader = processes.read(old[0])
    assert leader
    os.kill(leader.parent, signal.SIGSTOP)
    os.kill(old[1], signal.SIGKILL)
    until(lambda: triton.restarts == 1, 120)
    assert "rank 1 died" in events[0]
    assert answers(triton)


@pytest.mark.triton
def test_a_killed_guard_leaves_no_rank(triton: Triton) -> None:
    old = ranks_of(triton)
    mpirun_process = processes.read(old[0])
    assert mpirun_process
    guard = processes.read(mpirun_process.parent)
    assert guard
    os.kill(guard.pid, signal.SIGKILL)
    until(lambda: triton.restarts == 1, 120)
    assert not set(ranks_of(triton).values()) & set(old.values())
    assert answers(triton)


# What upstream's launcher gives each tritonserver, read from its source (get_cmd with its defaults
# and `--model_repo /repo`); rank 0 and a single rank alike.
LEADER = {
    "--model-repository=/repo",
    "--grpc-port=8001",
    "--http-port=8000",
    "--metrics-port=8002",
    "--disable-auto-complete-config",
}
WORKER = LEADER | {"--model-control-mode=explicit", "--load-model=tensorrt_llm"}
OURS = {
    "--http-address": "the network interface is the caller's choice; upstream listens on all",
    "--grpc-address": "the same",
    "--metrics-address": "the same",
    "--http-thread-count": "fewer lose parts of /generate_stream's answers",
    "--exit-timeout-secs": "upstream's --exit_timeout, with our grace",
    "--backend-config": "the region prefix, which upstream gives too under a name of its own",
}


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_the_command_is_upstreams_and_what_we_add_to_it_has_a_reason(
    world_size: int, mpirun: Path
) -> None:
    config = LaunchConfig(
        repository=Path("/repo"),
        log_path=Path("/log"),
        world_size=world_size,
        python_backends={},
        host="0.0.0.0",
    )
    server = TritonServer(
        path=Path("/opt/tritonserver/bin/tritonserver"),
        backends=Path("/opt/tritonserver/backends"),
    )
    words = arguments(
        config,
        server,
        Ports(http=8000, grpc=8001, metrics=8002),
        backends=None,
        shm_prefix="prefix",
        gpu=True,
    )
    if world_size == 1:
        # upstream's --no-mpi
        commands = [words]
    else:
        assert words[0] == str(mpirun)
        options, commands = stand_in.parse(words[1:])
        assert options - {"--allow-run-as-root"} == {"--bind-to"}
    assert len(commands) == world_size
    prefixes = set()
    for rank, command in enumerate(commands):
        assert command[0] == "/opt/tritonserver/bin/tritonserver"
        wanted = WORKER if rank else LEADER
        assert wanted <= set(command)
        assert {word.partition("=")[0] for word in set(command[1:]) - wanted} == set(OURS)
        [region] = [w for w in command if w.startswith("--backend-config=python,shm-region-prefix")]
        prefixes.add(region)
    assert len(prefixes) == world_size


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_mpirun_is_allowed_to_run_as_root_only_by_root(
    user: int, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    words = ranks.command(Path("/usr/bin/mpirun"), 2, lambda rank: ["server", str(rank)])
    assert ("--allow-run-as-root" in words) is allowed
    assert words[-9:] == ["-n", "1", "server", "0", ":", "-n", "1", "server", "1"]


def test_without_mpirun_the_error_says_where_one_is(
    config: LaunchConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"started by mpirun.*Triton container"):
        Triton(config).start()


def test_the_stand_in_refuses_what_mpirun_refuses(mpirun: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([mpirun, *words], capture_output=True, text=True, check=False)

    root = ["--allow-run-as-root"] * (os.geteuid() == 0)
    good = [sys.executable, "-c", "import os; print(os.environ['OMPI_COMM_WORLD_RANK'])"]
    assert sorted(run(*root, "-n", "1", *good, ":", "-n", "1", *good).stdout.split()) == ["0", "1"]
    assert run(*root, "--no-such-option", "-n", "1", *good).returncode != 0
    assert run(*root, "-n", "1", *good, ":").returncode != 0
    assert run(*root, "-n", "1", sys.executable, "-c", "import sys; sys.exit(3)").returncode == 3


@dataclass
class Host:
    """Stands for a machine; the fields of builder.machine.resources's that preflight reads."""

    shm_bytes: int = 4 << 30
    memlock_bytes: int | None = None


def checked(host: Host, world_size: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(preflight, "host", lambda: host)
    said: list[str] = []
    preflight.check_ranks(world_size, say=said.append)
    return said


def test_dockers_own_shared_memory_is_refused_for_several_ranks(
    mpirun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dockers = Host(shm_bytes=64 << 20, memlock_bytes=64 << 10)
    with pytest.raises(LaunchError, match=r"found 64 MiB; .*--shm-size=4g"):
        checked(dockers, 2, monkeypatch)
    assert checked(dockers, 1, monkeypatch) == []
    assert checked(Host(), 8, monkeypatch) == []


def test_limited_locked_memory_is_told(mpirun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = checked(Host(memlock_bytes=8 << 20), 2, monkeypatch)
    assert "limited to 8 MiB" in line
    assert "--ulimit memlock=-1" in line


def test_several_ranks_are_refused_before_they_start_where_there_is_no_mpirun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="started by mpirun"):
        checked(Host(), 2, monkeypatch)
    assert checked(Host(), 1, monkeypatch) == []


@pytest.mark.parametrize(
    ("backend", "target", "complaint"),
    [
        ("tensorrtllm", "tensorrt-llm", None),
        ("python", "openvino", None),
        ("python", "tensorrt-llm", "lacks NVIDIA's TensorRT-LLM backend"),
        ("tensorrtllm", "openvino", "runs no openvino engine"),
    ],
)
def test_a_triton_of_the_other_target_is_refused(
    backend: str,
    target: str,
    complaint: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """tritonserver is a stand-in: a file beside its backends."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "backends" / backend).mkdir(parents=True)
    (tmp_path / "bin" / "tritonserver").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingToolError, match=complaint) if complaint else nullcontext():
        preflight.check_backend(target)
