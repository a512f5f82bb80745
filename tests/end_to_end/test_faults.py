"""Promise: the endpoint outlives its parts, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from stack import NAME, Stack, running, tritonservers
from waiting import until

pytestmark = pytest.mark.triton

STUB = "triton_python_backend_stub"
SERVER = "tritonserver"


def shm_prefix(server: int) -> str:
    """What a tritonserver's shared memory is called, from its command line."""
    command = Path(f"/proc/{server}/cmdline").read_text()
    prefix = command.partition("shm-region-prefix-name=")[2].partition("\0")[0]
    assert prefix
    return prefix


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first stack makes, the others find there."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture
def small_stack(tiny_models: dict[str, Path], work: Path) -> Iterator[Stack]:
    """A stack of one's own, to be hurt."""
    (work / NAME / "repository.triton.log").unlink(missing_ok=True)
    with running(tiny_models["llama"], work, "--max-batch-size", "8") as started:
        yield started


def ask(stack: Stack) -> str | None:
    answer = stack.client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "hi"}], max_tokens=8
    )
    return answer.choices[0].finish_reason


def recovered(stack: Stack) -> bool:
    """Whether an answer comes within the time that a restart may take."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            return ask(stack) is not None
        except openai.APIError:
            time.sleep(0.2)
    return False


@pytest.mark.parametrize("program", [STUB, SERVER])
def test_a_killed_process_is_an_error_at_once_and_comes_back(
    small_stack: Stack, program: str
) -> None:
    for pid in small_stack.processes(program):
        with contextlib.suppress(ProcessLookupError):  # the first one's death may be known by then
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(openai.APIStatusError) as refused:
        ask(small_stack)
    assert refused.value.status_code in (500, 503)
    assert refused.value.body
    assert recovered(small_stack)


def test_a_stopped_stack_leaves_no_process_and_no_shared_memory(small_stack: Stack) -> None:
    ask(small_stack)
    [server] = tritonservers(small_stack.process.pid)
    prefix = shm_prefix(server)
    assert list(Path("/dev/shm").glob(f"{prefix}*"))
    small_stack.process.send_signal(signal.SIGINT)
    assert small_stack.process.wait(60) == 0
    assert not small_stack.processes(SERVER)
    assert not small_stack.processes(STUB)
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))


def test_a_killed_parent_leaves_no_orphan(small_stack: Stack) -> None:
    assert small_stack.processes(SERVER)
    small_stack.process.kill()
    small_stack.process.wait()
    until(lambda: not small_stack.processes(SERVER) and not small_stack.processes(STUB))


def test_a_second_stack_on_the_same_port_is_refused(small_stack: Stack) -> None:
    port = small_stack.url.rsplit(":", 1)[1]
    repository = small_stack.work / NAME / "repository"
    other = subprocess.run(
        [sys.executable, "-m", "trtbuild", "serve", str(repository), "--port", port],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert other.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in other.stderr
    assert "Traceback" not in other.stderr
    assert ask(small_stack)


def test_a_busy_stack_stops_without_waiting_for_triton_to_time_out(small_stack: Stack) -> None:
    with ThreadPoolExecutor(16) as clients:
        list(clients.map(lambda _: ask(small_stack), range(64)))
    small_stack.process.send_signal(signal.SIGTERM)
    small_stack.process.wait(60)
    log = (small_stack.work / NAME / "repository.triton.log").read_text()
    assert "successfully unloaded 'tensorrt_llm'" in log
    assert "Exit timeout expired" not in log
