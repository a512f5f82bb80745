"""Memory, shared memory, processor and disk of this machine, within its container's limits."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes no limit as a number near 2**63."""


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """Bytes of memory. `limit_bytes` is the container's limit, None without one below the total."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a machine has beside GPUs. `memlock_bytes` is None where it is unlimited."""

    memory: HostMemory
    shm_bytes: int
    shm_free_bytes: int
    memlock_bytes: int | None
    cpu: str
    cores: int
    cpu_flags: frozenset[str]


def host() -> Host:
    """This machine."""
    shm_bytes, shm_free_bytes = _shared_memory()
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    cpu, flags = _cpu(_ROOT)
    return Host(
        memory=memory(),
        shm_bytes=shm_bytes,
        shm_free_bytes=shm_free_bytes,
        memlock_bytes=None if limit == resource.RLIM_INFINITY else limit,
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)),
        cpu_flags=flags,
    )


def memory(root: Path = _ROOT) -> HostMemory:
    """The machine's memory, or what is left of it to this container.

    `root` is where `proc` and `sys` are. Page cache counts as available: it is given back.
    """
    found = re.findall(r"^(\w+):\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.M)
    sizes = {name: int(size) * 1024 for name, size in found}
    total, available = sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemFree"])
    limits = [(limit, used) for limit, used in _limits(root) if limit < total]
    if not limits:
        return HostMemory(total_bytes=total, available_bytes=available)
    limit = min(limit for limit, _ in limits)
    left = min(max(0, limit - used) for limit, used in limits)
    return HostMemory(total_bytes=limit, available_bytes=min(available, left), limit_bytes=limit)


def free_disk_bytes(folder: Path) -> int:
    """What is free where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of every cgroup around this process that limits memory."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            place, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            place, limit = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            used = "memory.usage_in_bytes"
        else:
            continue
        own = place / path.lstrip("/")
        for folder in (own, *own.parents):
            text = _read(folder / limit)
            if text.isdigit() and int(text) < _UNLIMITED_BYTES:
                yield int(text), int(_read(folder / used) or 0) - _cache_bytes(folder)
            if folder == place:
                break


def _cache_bytes(group: Path) -> int:
    """File pages that a cgroup would give back."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(group / "memory.stat"), re.M)
    return int(found[1]) if found else 0


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _shared_memory() -> tuple[int, int]:
    """Size of and free bytes in /dev/shm: 0 where there is none."""
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return 0, 0
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _cpu(root: Path) -> tuple[str, frozenset[str]]:
    """The processor's name and its instruction sets, as Linux names them."""
    text = _read(root / "proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    return name[1] if name else "unknown", frozenset(flags[1].split() if flags else ())
