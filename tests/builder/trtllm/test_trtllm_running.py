"""Promise: the compiler is never left behind, however it or we come to an end.

The compiler and docker are stand-ins; processes, signals and pipes are real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_machine import SMALL, StandInMachine, full_environment, gpus, is_alive
from waiting import until

from builder.convert import convert
from builder.targets.tensorrt_llm.running import running


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_lines_come_whole_as_they_are_said_and_in_order() -> None:
    code = r"""
import sys
sys.stdout.write("one\n 50%|##  |\r100%|####|\r\n\ntw"); sys.stdout.flush()
sys.stderr.write("o\n"); sys.stdout.write("caf\xe9 without end"); sys.exit(3)
"""
    with running(python(code)) as process:
        lines = list(process.lines(beat_s=10))
        assert process.exit_code() == 3
    assert lines == ["one", " 50%|##  |", "100%|####|", "two", "café without end"]


def test_silence_is_told_while_the_compiler_says_nothing(tmp_path: Path) -> None:
    enough, lines = tmp_path / "enough", list[str | None]()
    code = f"""
import os, time
while not os.path.exists({str(enough)!r}):
    time.sleep(0.01)
print('done')
"""
    with running(python(code)) as process:
        for line in process.lines(beat_s=0.1):
            lines.append(line)
            if lines.count(None) == 3:
                enough.touch()
    assert list(filter(None, lines)) == ["done"]


def test_a_program_that_is_not_there_ends_with_127() -> None:
    with running(["/no/such/program"]) as process:
        assert list(process.lines(beat_s=10)) == ["/no/such/program: No such file or directory"]
        assert process.exit_code() == 127


def test_a_killed_compiler_ends_with_137_and_its_workers_with_it(tmp_path: Path) -> None:
    code = f"""
import os, signal, subprocess, sys, time
sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)"
worker = subprocess.Popen([sys.executable, "-S", "-c", sleep], start_new_session=True)
open({str(tmp_path / "pid")!r}, "w").write(str(worker.pid))
os.kill(os.getpid(), signal.SIGKILL)
"""
    with running(python(code)) as process:
        assert list(process.lines(beat_s=10)) == []
        assert process.exit_code() == 137
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_leaving_it_ends_a_compiler_that_will_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.targets.tensorrt_llm.running._GRACE_S", 0.5)
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(99)
"""
    mark = tmp_path / "aftermath"
    for aftermath in ([], ["touch", str(mark)]):
        with running(python(code), aftermath) as process:
            pid = int(next(iter(process.lines(beat_s=10))) or 0)
            assert is_alive(pid)
        assert not is_alive(pid)
    assert mark.exists()


def test_a_compiler_that_ends_by_itself_needs_no_aftermath(tmp_path: Path) -> None:
    mark = tmp_path / "aftermath"
    with running(python("raise SystemExit(1)"), ["touch", str(mark)]) as process:
        assert list(process.lines(beat_s=10)) == []
    assert not mark.exists()


def test_a_killed_guard_ends_the_compiler_and_the_waiting() -> None:
    code = """
import os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(99)"])
print(worker.pid, os.getppid(), os.getpid(), flush=True)
time.sleep(99)
"""
    with running(python(code)) as process:
        lines = process.lines(beat_s=0.2)
        worker, guard, compiler = map(int, next(filter(None, lines)).split())
        os.kill(guard, signal.SIGKILL)
        assert set(lines) <= {None}
        assert process.exit_code() == 137
    assert not is_alive(compiler)
    os.kill(worker, signal.SIGKILL)


@pytest.fixture
def machine(tmp_path: Path) -> StandInMachine:
    machine = StandInMachine(tmp_path / "machine")
    machine.add_gpus(*gpus())
    return machine


@pytest.fixture
def checkpoint(tiny_folder: Path, tmp_path: Path) -> Path:
    convert(tiny_folder, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def start(
    machine: StandInMachine, checkpoint: Path, out: Path, *more: str, mode: str = ""
) -> subprocess.Popen[str]:
    """`trtbuild build` in a process of its own."""
    command = ("build", str(checkpoint), "-o", str(out), "--target", "tensorrt-llm", *SMALL)
    return subprocess.Popen(
        [sys.executable, "-m", "trtbuild", *command, *more],
        env=full_environment(machine, STAND_IN=mode, STAND_IN_SECONDS="0.2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background has them ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


@pytest.mark.parametrize(
    ("stop", "contained"),
    [
        (signal.SIGKILL, False),
        (signal.SIGKILL, True),
        (signal.SIGINT, False),
        (signal.SIGINT, True),
        (signal.SIGTERM, False),
    ],
)
def test_a_stopped_build_leaves_no_compiler_no_container_and_no_engine(
    machine: StandInMachine,
    checkpoint: Path,
    tmp_path: Path,
    stop: signal.Signals,
    contained: bool,
) -> None:
    if contained:
        machine.add_docker()
    else:
        machine.add_tensorrt_llm()
    out, container = tmp_path / "engine", ("--container",) if contained else ()
    worker = machine.root / "worker"
    process = start(machine, checkpoint, out, *container, mode="hang")
    until(lambda: (worker.exists() and worker.read_text()) or process.poll() is not None, 120)
    assert process.poll() is None, process.communicate()[1]
    compilers = [json.loads(machine.calls[0])["pid"], int(worker.read_text())]
    assert all(map(is_alive, compilers))
    process.send_signal(stop)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in said
    until(lambda: not any(map(is_alive, compilers)), 120)
    until(lambda: not list((machine.root / "containers").glob("trtbuild-*[!g]")), 120)
    assert not out.exists()
    if stop == signal.SIGKILL and not contained:
        finish(start(machine, checkpoint, out))
        assert (out / "rank0.engine").is_file()
        assert not list(tmp_path.glob(".engine.*"))


def test_two_builds_at_once_leave_the_timing_cache_whole(
    machine: StandInMachine, checkpoint: Path, tmp_path: Path
) -> None:
    machine.add_tensorrt_llm()
    cache = tmp_path / "timing.cache"
    cache.write_text("begin 5 end")
    shared = ("--timing-cache", str(cache))
    builds = [start(machine, checkpoint, tmp_path / f"engine{i}", *shared) for i in range(2)]
    for each in builds:
        finish(each)
    assert cache.read_text() == "begin 6 end"
    assert not list(tmp_path.glob(".timing*"))
