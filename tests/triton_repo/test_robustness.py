"""Promise: what dies, hangs or fills up, clients hear of at once; later requests succeed.

The engine is a real one under load. What is written to /dev/shm is in a mount namespace of the
test's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from test_launch import add_model, stubs
from test_swap import tokens
from tiny_engine import EngineOf, make_engine
from waiting import until

from builder.errors import LaunchError
from triton_repo.control import access
from triton_repo.control.client import Control
from triton_repo.launch import processes
from triton_repo.launch.probe import REQUESTS, Probe, ask
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository

STREAMS = 16
AT_ONCE_S = 30
"""Clients hear within a second or two; the machine that tests run on may be busy."""


@pytest.fixture
def config(engine_of: EngineOf, tmp_path: Path) -> LaunchConfig:
    write_repository(engine_of("llama"), tmp_path / "repo")
    return LaunchConfig(
        repository=tmp_path / "repo",
        log_path=tmp_path / "log",
        models=("tensorrt_llm",),
        grace_s=3,
        backoff_s=0.1,
    )


@dataclass
class Streams:
    """16 long answers at once; each ends whole, or with an error."""

    triton: Triton
    counts: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Streams:
        self._threads = [threading.Thread(target=self._run) for _ in range(STREAMS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        try:
            self.counts.append(len(tokens(self.triton, 480, self.begun.set)))
        except Exception as error:  # noqa: BLE001
            self.errors.append(repr(error))


def engine_stub(triton: Triton) -> int:
    """The process of the model that runs the engine: the largest."""
    sizes = {pid: Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in stubs(triton)}
    return max(sizes, key=lambda pid: int(sizes[pid]))


@pytest.mark.triton
@pytest.mark.parametrize("victim", ["the engine's process", "tritonserver"])
def test_a_kill_under_load_is_an_error_at_once_and_all_come_back(
    victim: str, config: LaunchConfig
) -> None:
    with Triton(config) as triton:
        expected = tokens(triton, 40)
        with Streams(triton) as streams:
            assert streams.begun.wait(60)
            pid = triton.pid if victim == "tritonserver" else engine_stub(triton)
            assert pid
            os.kill(pid, signal.SIGKILL)
            # streams of a dead stub would stay open for ever: the restart ends them
            until(streams.ended, AT_ONCE_S)
        assert streams.errors
        assert streams.counts == [480] * (STREAMS - len(streams.errors))
        until(lambda: triton.restarts == 1, 120)
        assert tokens(triton, 40) == expected
        assert triton.restarts == 1


@pytest.mark.triton
def test_an_engine_that_hangs_is_found_by_the_probe_and_comes_back(config: LaunchConfig) -> None:
    probe = Probe(requests={"tensorrt_llm": REQUESTS["openvino"]}, interval_s=0.5, timeout_s=8)
    events: list[str] = []
    with Triton(replace(config, probe=probe), on_event=events.append) as triton:
        expected = tokens(triton, 20)
        time.sleep(2)
        assert triton.restarts == 0
        stopped = engine_stub(triton)
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: triton.restarts == 1, 120)
        # Triton itself has noticed, and goes on calling the model ready
        assert "tensorrt_llm gave no token" in events[0]
        assert tokens(triton, 20) == expected
        assert (left := processes.read(stopped)) is None or left.dead


@pytest.mark.triton
def test_a_probe_has_a_token_from_the_real_engine_and_tells_what_has_none(
    config: LaunchConfig,
) -> None:
    request = REQUESTS["openvino"]
    with Triton(config) as triton:
        assert ask(triton.http_address, "tensorrt_llm", request, 60) > 0
        with pytest.raises(LaunchError, match=r"nobody gave no token; found .*unknown model"):
            ask(triton.http_address, "nobody", request, 60)
        with pytest.raises(LaunchError, match="tensorrt_llm gave no token; found"):
            ask(triton.http_address, "tensorrt_llm", {"input_ids": [1]}, 60)
        address = triton.http_address
    with pytest.raises(LaunchError, match="gave no token"):
        ask(address, "tensorrt_llm", request, 5)


@pytest.mark.triton
def test_a_model_that_does_not_answer_in_time_fails_the_probe_and_is_restarted(
    tmp_path: Path,
) -> None:
    """A model of Python's that sleeps for as many milliseconds as it is told."""
    config = LaunchConfig(
        repository=add_model(tmp_path / "repo"),
        log_path=tmp_path / "log",
        python_backends={},
        grace_s=1,
        backoff_s=0.1,
        probe=Probe(requests={"echo": {"X": [60_000]}}, interval_s=0.5, timeout_s=1),
    )
    events: list[str] = []
    with Triton(config, on_event=events.append) as triton:
        until(lambda: triton.restarts >= 1, 120)
    assert "echo gave no token within 1 s" in events[0]


@pytest.mark.triton
def test_a_model_that_was_unloaded_is_not_probed(tmp_path: Path) -> None:
    config = LaunchConfig(
        repository=add_model(tmp_path / "repo"),
        log_path=tmp_path / "log",
        python_backends={},
        model_control=True,
        admin_key="sesame",
        grace_s=1,
        backoff_s=0.1,
        probe=Probe(requests={"echo": {"X": [1]}}, interval_s=0.3, timeout_s=20),
    )
    events: list[str] = []
    with Triton(config, on_event=events.append) as triton:
        Control(access.read(config.log_path)).unload("echo")
        time.sleep(2)
        assert events == []
        assert triton.restarts == 0


@pytest.mark.triton
def test_new_requests_are_refused_while_those_under_way_finish(config: LaunchConfig) -> None:
    triton = Triton(replace(config, grace_s=60))
    triton.start()
    answers: list[int] = []
    begun = threading.Event()
    asking = threading.Thread(target=lambda: answers.append(len(tokens(triton, 480, begun.set))))
    asking.start()
    assert begun.wait(60)
    stopping = threading.Thread(target=triton.stop)
    stopping.start()
    until(lambda: is_refused(triton))
    asking.join()
    stopping.join()
    assert answers == [480]


def is_refused(triton: Triton) -> bool:
    try:
        tokens(triton, 1)
    except Exception:  # noqa: BLE001
        return True
    return False


def in_small_shm(size_kib: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` where /dev/shm is a file system of its own of this size."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mount = f"mount -t tmpfs -o size={size_kib}k tmpfs /dev/shm"
    if subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces for this user")
    return subprocess.run(
        [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_too_little_shared_memory_is_refused_before_the_start(tmp_path: Path) -> None:
    write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo")
    command = (sys.executable, "-m", "trtbuild", "serve", str(tmp_path / "repo"), "--port", "0")
    result = in_small_shm(2_048, *command)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "Python models need" in line
    assert "found 2 MiB free in /dev/shm" in line
    assert "--shm-size" in line
    assert not (tmp_path / "repo.triton.log").exists()


FULL = """
    import os, sys, json
    from pathlib import Path
    sys.path[:0] = {path!r}
    import numpy as np
    from running import infer
    from builder.errors import LaunchError
    from triton_repo.launch.triton import LaunchConfig, Triton

    config = LaunchConfig(
        repository=Path({repository!r}), log_path=Path({log!r}), python_backends={{}}, grace_s=3
    )

    def answer(triton, count):
        try:
            x = np.arange(count, dtype=np.int32) * 0
            return len(infer(triton, "echo", {{"X": x}}).as_numpy("Y"))
        except Exception as error:
            return str(error)

    found = {{}}
    try:
        with Triton(config) as triton:
            server = triton.pid
            found["before"] = answer(triton, 10)
            with open("/dev/shm/full", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
            found["full"] = answer(triton, 2_000_000)
            found["small"] = answer(triton, 10)
            os.unlink("/dev/shm/full")
            found["later"] = answer(triton, 10)
            found["large"] = answer(triton, 400_000)
            found["same"] = triton.pid == server and triton.restarts == 0
    except LaunchError as error:
        found["error"] = str(error)
    print(json.dumps(found))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    repository = add_model(tmp_path / "repo")
    text = FULL.format(path=sys.path, repository=str(repository), log=str(tmp_path / "log"))
    return textwrap.dedent(text)


@pytest.mark.triton
def test_a_start_on_a_full_shared_memory_says_what_to_do(script: str) -> None:
    found = json.loads(in_small_shm(512, sys.executable, "-c", script).stdout)
    assert "failed to load 'echo'" in found["error"]
    assert "shared memory" in found["error"]
    assert "--shm-size" in found["error"]


@pytest.mark.triton
def test_shared_memory_that_fills_up_fails_requests_and_not_the_server(script: str) -> None:
    result = in_small_shm(8_192, sys.executable, "-c", script)
    found = json.loads(result.stdout)
    assert found["before"] == found["small"] == found["later"] == 10
    assert found["large"] == 400_000
    assert "shared memory" in str(found["full"])
    assert found["same"]
