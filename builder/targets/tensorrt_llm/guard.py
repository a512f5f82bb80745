"""Stands between us and the engine compiler, so that the compiler never outlives us.

A process of its own, because it must act when we are killed: our end of its standard input closes,
and it kills the compiler with all its workers (TensorRT-LLM starts one a rank, which outlive
their parent) and runs AFTERMATH, a command that removes a container which no kill of the docker
client would reach. Run as a script: standard library only.

    guard.py AFTERMATH_JSON PROGRAM ARGUMENT…

On standard input, `t` asks the compiler to end, and closing it kills. AFTERMATH is a JSON list, of
no words for nothing; it is not run after a compiler that ended by itself. The exit code is the
compiler's, or 128 + the signal that ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

POLL_S = 0.2
KILL_S = 10.0
AFTERMATH_S = 30.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the compiler to its end, and tidy up after it."""
    aftermath, *command = sys.argv[1:]
    libc = ctypes.CDLL(None)
    # the workers become our children when the compiler goes, so that none can be missed
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    compiler = os.fork()
    if compiler == 0:
        _exec(libc, command)
    ordered, status = _watch(compiler)
    _kill_children()
    if ordered or status < 0:
        _run(json.loads(aftermath))
    return status if status >= 0 else 128 - status


def _exec(libc: ctypes.CDLL, command: list[str]) -> None:
    """Become the compiler, which dies with the guard, should that be killed."""
    try:
        os.setsid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _watch(compiler: int) -> tuple[bool, int]:
    """Wait for the compiler; whether it was told to end, and its exit status (-N: signal N)."""
    ordered, sources = False, [0]
    while True:
        if select.select(sources, [], [], POLL_S)[0]:
            ordered = True
            if os.read(0, 1):
                _signal_group(compiler, signal.SIGTERM)
            else:
                sources = []
                _signal_group(compiler, signal.SIGKILL)
        pid, status = os.waitpid(compiler, os.WNOHANG)
        if pid:
            return ordered, os.waitstatus_to_exitcode(status)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)
    with contextlib.suppress(ProcessLookupError):
        # it has no group of its own yet in the moment after the fork
        os.kill(leader, number)


def _kill_children() -> None:
    """Kill and reap what the compiler left: its workers, which are ours now."""
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        for pid in _children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


def _children(parent: int) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry))
    return found


def _run(aftermath: list[str]) -> None:
    if aftermath:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                aftermath,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=AFTERMATH_S,
                check=False,
            )


if __name__ == "__main__":
    sys.exit(main())
