"""Stands between the launcher and tritonserver, so that neither leaves anything behind.

A process of its own, because what must be tidied up outlives the launcher: when the launcher is
killed (its end of our standard input closes), tritonserver is killed; when tritonserver has gone,
for whatever reason, it is reaped (its Python stubs live on until it is), the stubs are killed,
and its shared memory and its private folder are removed. Run as a script: standard library only.

    guard.py SHM_PREFIX FOLDER TRITONSERVER ARGUMENT…

On standard input, `t` asks for tritonserver's orderly end. The exit code is tritonserver's, or
128 + the signal that ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

PARENT_CHECK_S = 2.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the command line's tritonserver to its end, and tidy up after it."""
    shm_prefix, folder, *command = sys.argv[1:]
    parent = os.getppid()
    libc = ctypes.CDLL(None)
    # the stubs become our children when tritonserver goes, so that none can be missed
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = _wake_on_child()
    server = os.fork()
    if server == 0:
        _exec(libc, command)
    status = _watch(server, parent, wake)
    _kill_children()
    for region in Path("/dev/shm").glob(f"{shm_prefix}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read


def _exec(libc: ctypes.CDLL, command: list[str]) -> None:
    """Become tritonserver, which dies with the guard, should that be killed."""
    try:
        os.setsid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"error: {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _watch(server: int, parent: int, wake: int) -> int:
    """Wait for the server, killing it when the parent has gone; its exit status."""
    sources = [0, wake]
    while True:
        ready, _, _ = select.select(sources, [], [], PARENT_CHECK_S)
        if 0 in ready:
            order = os.read(0, 16)
            if order:
                os.kill(server, signal.SIGTERM)
            else:
                sources.remove(0)
                os.kill(server, signal.SIGKILL)
        elif os.getppid() != parent:
            os.kill(server, signal.SIGKILL)
        if wake in ready:
            os.read(wake, 512)
        pid, status = os.waitpid(server, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)


def _kill_children() -> None:
    """Kill and reap what the server left: its stubs, which are ours now."""
    deadline = time.monotonic() + 10
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
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry))
    return found


if __name__ == "__main__":
    sys.exit(main())
