"""What /proc says of tritonserver and its Python stubs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

SERVER = "tritonserver"
STUB = "triton_python_b"
"""The stub's name as the kernel keeps it: its first 15 characters."""


@dataclass(frozen=True)
class Process:
    """A process: its id, its parent's, its name (15 characters at most) and its state."""

    pid: int
    parent: int
    name: str
    state: str

    @property
    def dead(self) -> bool:
        """Whether it has ended (and waits to be reaped)."""
        return self.state in "ZX"


def read(pid: int) -> Process | None:
    """The process `pid`, or None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    head, _, tail = stat.rpartition(")")
    state, parent = tail.split()[:2]
    return Process(pid, int(parent), head.partition("(")[2], state)


def children(parent: int) -> list[Process]:
    """The processes whose parent is `parent`, dead ones included."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    found = (read(pid) for pid in pids)
    return [process for process in found if process and process.parent == parent]


def descendants(ancestor: int) -> list[Process]:
    """All processes below `ancestor`, dead ones included."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    everyone = [process for pid in pids if (process := read(pid))]
    found: list[Process] = []
    parents = [ancestor]
    for parent in parents:
        born = [process for process in everyone if process.parent == parent]
        found += born
        parents += [process.pid for process in born]
    return found


def mentioning(text: str) -> list[int]:
    """The processes with `text` in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if text.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
    return found


def servers(ancestor: int) -> list[Process]:
    """The living tritonservers below `ancestor`; a stub that one is just forking is none."""
    named = [process for process in descendants(ancestor) if process.name == SERVER]
    parents = {process.pid for process in named}
    return [each for each in named if each.parent not in parents and not each.dead]


def stubs(server: int) -> list[Process]:
    """The Python stubs of the tritonserver `server`."""
    return [process for process in children(server) if process.name == STUB]
