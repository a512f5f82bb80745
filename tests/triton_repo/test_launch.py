from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from running import client, infer, tensors
from tritonclient.utils import InferenceServerException
from waiting import until

from builder.errors import LaunchError, MissingToolError, OutputError
from triton_repo.launch import binary, process, processes, server_log
from triton_repo.launch.binary import TritonServer
from triton_repo.launch.command import LaunchConfig, Ports, arguments
from triton_repo.launch.ports import free_ports
from triton_repo.launch.triton import Triton

CONFIG = """
name: "{name}"  backend: "python"
input {{ name: "X" data_type: TYPE_INT32 dims: -1 }}
output {{ name: "Y" data_type: TYPE_INT32 dims: -1 }}
instance_group {{ kind: KIND_CPU }}
"""
ECHO = """
import os, time
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        tensors = [pb.get_input_tensor_by_name(r, "X").as_numpy() for r in requests]
        time.sleep(float(tensors[0][0]) / 1000)
        return [pb.InferenceResponse([pb.Tensor("Y", t)]) for t in tensors]
"""
X = {"X": np.array([0, 1, 2], np.int32)}


def add_model(repository: Path, name: str = "echo", *, initialize: str = "pass") -> Path:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name))
    (folder / "1" / "model.py").write_text(ECHO.format(initialize=initialize))
    return repository


def stubs(triton: Triton) -> list[int]:
    server = triton.pid
    return [s.pid for s in processes.stubs(server)] if server else []


def gone(*pids: int) -> bool:
    return all(processes.read(pid) is None for pid in pids)


def shm_prefix(server: int | None) -> str:
    """What a tritonserver's shared memory is called, from its command line."""
    command = Path(f"/proc/{server}/cmdline").read_text()
    return command.partition("shm-region-prefix-name=")[2].partition("\0")[0]


def shm_regions(prefix: str) -> list[Path]:
    assert prefix
    return list(Path("/dev/shm").glob(f"{prefix}*"))


@pytest.fixture
def config(tmp_path: Path) -> LaunchConfig:
    return LaunchConfig(
        repository=add_model(tmp_path / "repo"),
        log_path=tmp_path / "logs" / "triton.log",
        python_backends={},
        grace_s=3,
        backoff_s=0.1,
    )


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def triton(config: LaunchConfig, events: list[str]) -> Iterator[Triton]:
    with Triton(config, on_event=events.append) as running:
        yield running


@pytest.mark.triton
def test_it_serves_and_leaves_nothing_behind(config: LaunchConfig, tmp_path: Path) -> None:
    with Triton(config) as triton:
        assert triton.healthy
        prefix = shm_prefix(triton.pid)
        assert len(shm_regions(prefix)) == 1
        assert infer(triton, "echo", X).as_numpy("Y").tolist() == [0, 1, 2]
        with urlopen(f"http://{triton.metrics_address}/metrics", timeout=10) as response:
            assert b"nv_inference_count" in response.read()
        pids = [triton.pid or 0, *stubs(triton)]
        assert len(pids) == 2
        assert not gone(*pids)
    assert gone(*pids)
    assert not shm_regions(prefix)
    assert not triton.healthy
    assert triton.wait(0)
    triton.stop()


@pytest.mark.triton
def test_a_killed_model_process_is_noticed_and_comes_back(
    triton: Triton, events: list[str]
) -> None:
    address, dead = triton.grpc_address, stubs(triton)[0]
    os.kill(dead, signal.SIGKILL)
    until(lambda: triton.restarts == 1)
    assert triton.grpc_address == address
    assert triton.healthy
    assert infer(triton, "echo", X).as_numpy("Y").tolist() == [0, 1, 2]
    assert f"a model's process died (process {dead})" in events[0]
    assert events[-1] == "Triton is up again"


@pytest.mark.triton
def test_a_killed_tritonserver_is_noticed_and_comes_back(triton: Triton, events: list[str]) -> None:
    old = [triton.pid or 0, *stubs(triton)]
    os.kill(old[0], signal.SIGKILL)
    until(lambda: triton.restarts == 1)
    assert gone(*old)
    assert infer(triton, "echo", X).as_numpy("Y").tolist() == [0, 1, 2]
    assert "Triton died (signal 9)" in events[0]
    assert "Started GRPCInferenceService" in events[0]


@pytest.mark.triton
def test_a_server_that_keeps_failing_is_given_up(
    config: LaunchConfig, events: list[str], tmp_path: Path
) -> None:
    fuse = tmp_path / "fuse"
    initialize = f"assert not os.path.exists({str(fuse)!r}), 'no weights'"
    add_model(config.repository, "brittle", initialize=initialize)
    config = LaunchConfig(
        repository=config.repository,
        log_path=config.log_path,
        python_backends={},
        max_failures=2,
        backoff_s=0.1,
    )
    with Triton(config, on_event=events.append) as triton:
        fuse.touch()
        os.kill(triton.pid or 0, signal.SIGKILL)
        with pytest.raises(LaunchError, match="failed 2 times in a row"):
            triton.wait(120)
        assert not triton.healthy
    assert any("no weights" in event for event in events)


@pytest.mark.triton
def test_a_model_that_does_not_load_is_the_error(
    config: LaunchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: known)
    add_model(config.repository, "broken", initialize="raise ValueError('no such weights')")
    with pytest.raises(LaunchError, match="no such weights") as caught:
        Triton(config).start()
    assert "failed to load 'broken'" in (caught.value.found or "")
    assert str(config.log_path) in str(caught.value)
    assert not shm_regions(f"trtbuild_{known.hex[:12]}")


@pytest.mark.triton
def test_a_model_that_takes_too_long_is_the_error(config: LaunchConfig) -> None:
    loaded = config.log_path.with_name("loaded")
    initialize = f"time.sleep(60); open({str(loaded)!r}, 'w').close()"
    add_model(config.repository, "slow", initialize=initialize)
    config = LaunchConfig(
        repository=config.repository,
        log_path=config.log_path,
        python_backends={},
        start_timeout_s=1.5,
    )
    with pytest.raises(LaunchError, match=r"wasn't ready within 1\.5 s"):
        Triton(config).start()
    assert not loaded.exists(), "it waited for the model all the same"


@pytest.mark.triton
def test_an_open_stream_does_not_hold_the_stop(config: LaunchConfig) -> None:
    config = LaunchConfig(
        repository=config.repository, log_path=config.log_path, python_backends={}, grace_s=1
    )
    triton = Triton(config)
    triton.start()
    pids = [triton.pid or 0, *stubs(triton)]
    answered = threading.Event()
    with client(triton) as connection:
        connection.start_stream(lambda result, error: answered.set())
        connection.async_stream_infer("echo", tensors(X))
        assert answered.wait(60)
        stopping = threading.Thread(target=triton.stop, daemon=True)
        stopping.start()
        stopping.join(60)
        assert not stopping.is_alive()
    assert gone(*pids)


@pytest.mark.triton
def test_a_request_under_way_may_finish(config: LaunchConfig) -> None:
    begun = config.log_path.with_name("begun")
    model = config.repository / "echo" / "1" / "model.py"
    begin = f"open({str(begun)!r}, 'w').close()"
    model.write_text(model.read_text().replace("        time.", f"        {begin}; time."))
    triton = Triton(replace(config, grace_s=60))
    triton.start()
    answers: list[list[int]] = []
    slow = {"X": np.array([1500], np.int32)}
    asking = threading.Thread(
        target=lambda: answers.append(infer(triton, "echo", slow).as_numpy("Y").tolist())
    )
    asking.start()
    until(begun.exists)
    triton.stop()
    asking.join()
    assert answers == [[1500]]


@pytest.mark.triton
def test_models_can_be_chosen_and_others_wait(config: LaunchConfig) -> None:
    add_model(config.repository, "other", initialize="raise ValueError('not wanted')")
    config = LaunchConfig(
        repository=config.repository,
        log_path=config.log_path,
        python_backends={},
        models=("echo",),
        grace_s=3,
    )
    with Triton(config) as triton:
        assert infer(triton, "echo", X).as_numpy("Y").tolist() == [0, 1, 2]
        with client(triton) as connection:
            # an unloaded model's process ends too, and that is no failure
            connection.unload_model("echo")
            until(lambda: not stubs(triton))
            time.sleep(1)
            connection.load_model("echo")
        assert infer(triton, "echo", X).as_numpy("Y").tolist() == [0, 1, 2]
        assert triton.restarts == 0
        until(lambda: len(stubs(triton)) == 1)
        # the model that came later is watched as well
        os.kill(stubs(triton)[0], signal.SIGKILL)
        until(lambda: triton.restarts == 1)


@pytest.mark.triton
def test_no_orphan_when_the_parent_is_killed(config: LaunchConfig) -> None:
    script = f"""
        import sys, time
        from pathlib import Path
        from triton_repo.launch import processes
        from triton_repo.launch.triton import LaunchConfig, Triton
        config = LaunchConfig(
            repository=Path({str(config.repository)!r}), log_path=Path({str(config.log_path)!r}),
            python_backends={{}},
        )
        triton = Triton(config)
        triton.start()
        print(triton.pid, *(s.pid for s in processes.stubs(triton.pid)), flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not gone(*pids)
        prefix = shm_prefix(pids[0])
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: gone(*pids))
    until(lambda: not shm_regions(prefix))


@pytest.mark.triton
def test_watching_costs_nothing(triton: Triton, monkeypatch: pytest.MonkeyPatch) -> None:
    wait, waits = process._wait, list[float]()

    def noted(descriptors: list[int], timeout_s: float) -> list[int]:
        waits.append(timeout_s)
        return wait(descriptors, timeout_s)

    monkeypatch.setattr(process, "_wait", noted)
    time.sleep(3)
    assert len(waits) <= 1, "it sleeps in the kernel, but for a look at times"


@pytest.mark.triton
def test_a_python_backend_of_nvidias_name_runs(config: LaunchConfig) -> None:
    text = (config.repository / "echo" / "config.pbtxt").read_text()
    (config.repository / "echo" / "1" / "model.py").unlink()
    (config.repository / "echo" / "config.pbtxt").write_text(
        text.replace('"python"', '"tensorrtllm"')
    )
    config = LaunchConfig(
        repository=config.repository,
        log_path=config.log_path,
        python_backends={"tensorrtllm": ECHO.format(initialize="pass")},
    )
    with Triton(config) as triton:
        assert infer(triton, "echo", X).as_numpy("Y").tolist() == [0, 1, 2]
        prefix = shm_prefix(triton.pid)
        assert len(shm_regions(prefix)) == 1
    assert not shm_regions(prefix)


@pytest.mark.triton
def test_an_unknown_model_is_an_error_not_a_death(triton: Triton) -> None:
    with pytest.raises(InferenceServerException, match="unknown model"):
        infer(triton, "nobody", X)
    assert triton.healthy


def test_a_repository_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    config = LaunchConfig(repository=tmp_path / "none", log_path=tmp_path / "log")
    with pytest.raises(LaunchError, match="no such folder"):
        Triton(config).start()


def test_ports_are_free_different_and_outside_the_outgoing_range() -> None:
    ports = free_ports("127.0.0.1", 3)
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 3
    assert first <= 11_000 or max(ports) < first


def test_a_tritonserver_on_the_path_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "triton" / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    found = binary.find()
    assert found.path == program
    assert found.backends == tmp_path / "triton" / "backends"
    assert found.environment == {}


def test_without_any_tritonserver_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match="nvidia-pytriton"):
        binary.find()


def test_numpy_2_is_refused_before_it_empties_every_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1.0")
    with pytest.raises(MissingToolError, match="needs numpy 1; found numpy 2"):
        binary.find()


@pytest.mark.triton
def test_a_killed_guard_takes_tritonserver_with_it(triton: Triton, events: list[str]) -> None:
    server = triton.pid or 0
    guard = processes.read(server)
    assert guard is not None
    os.kill(guard.parent, signal.SIGKILL)
    until(lambda: triton.restarts == 1)
    until(lambda: (dead := processes.read(server)) is None or dead.dead)
    assert infer(triton, "echo", X).as_numpy("Y").tolist() == [0, 1, 2]


def test_a_log_that_cannot_be_written_is_said_so(
    config: LaunchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match="No space left"):
        Triton(config).start()


@pytest.mark.triton
def test_a_triton_that_is_stopped_while_it_starts_does_not_stay(config: LaunchConfig) -> None:
    add_model(config.repository, "slow", initialize="time.sleep(60)")
    triton = Triton(config)
    threading.Timer(0.7, triton.stop).start()
    with pytest.raises(LaunchError, match="stopped while it started"):
        triton.start()
    assert triton.pid is None


def nvidia_container(folder: Path, *backends: str) -> TritonServer:
    for name in ("python", *backends):
        (folder / "backends" / name).mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_stub"):
        (folder / "backends" / "python" / name).touch()
    return TritonServer(path=folder / "bin" / "tritonserver", backends=folder / "backends")


def test_nvidias_own_backend_is_used_where_it_is(tmp_path: Path) -> None:
    server = nvidia_container(tmp_path, "tensorrtllm")
    assert not binary.needs_own_backends(server, binary.PYTHON_BACKENDS)


def test_a_container_without_it_gets_ours_beside_its_own(tmp_path: Path) -> None:
    server = nvidia_container(tmp_path, "onnxruntime")
    assert binary.needs_own_backends(server, binary.PYTHON_BACKENDS)
    (tmp_path / "made").mkdir()
    binary.make_backends(server, binary.PYTHON_BACKENDS, tmp_path / "made")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == [
        "onnxruntime",
        "python",
        "tensorrtllm",
    ]
    assert not (tmp_path / "made" / "python" / "libtriton_python.so").is_symlink()
    assert (tmp_path / "made" / "python" / "triton_python_backend_stub").is_symlink()


def test_the_command_line_follows_the_machine_and_the_settings(tmp_path: Path) -> None:
    config = LaunchConfig(
        repository=tmp_path, log_path=tmp_path / "log", models=("a",), extra_arguments=("--x=1",)
    )
    server, ports = nvidia_container(tmp_path), Ports(http=1, grpc=2, metrics=3)

    def command(*, gpu: bool) -> list[str]:
        return arguments(config, server, ports, backends=None, shm_prefix="p_", gpu=gpu)

    assert "--http-thread-count=64" in command(gpu=True)
    assert "--model-control-mode=explicit" in command(gpu=True)
    assert command(gpu=True)[-2:] == ["--load-model=a", "--x=1"]
    assert "--backend-config=python,shm-region-prefix-name=p_" in command(gpu=True)
    assert not any(re.match("--backend-directory|--pinned", part) for part in command(gpu=True))
    assert {"--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"} <= set(
        command(gpu=False)
    )


def test_the_cause_is_the_first_error_of_this_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    old = 'E1124 04:13:21.8 1 a.cc:1] "an older run\'s"\n'
    new = (
        'E1124 04:13:21.8 1 server.cc:241] "CudaDriverHelper has not been initialized."\n'
        "I1124 04:13:21.8 1 server.cc:241] fine\n"
        'E1124 04:13:21.8 1 model.cc:1] "failed to load"\n'
        "error: creating server: Internal - failed to load all models\n"
    )
    log.write_text(old + new)
    assert server_log.cause(log, len(old)) == "failed to load"
    assert server_log.tail(log, len(old), lines=1).startswith("error: creating server")
    assert server_log.cause(tmp_path / "none", 0) is None
