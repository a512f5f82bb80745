"""Promise: what a container may use of its machine is what counts, in either version of cgroups."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from builder.machine.resources import HostMemory, free_disk_bytes, host, memory

GIB = 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"


def root(tmp_path: Path, files: dict[str, str]) -> Path:
    """A machine of 16 GiB, 8 of them available, with these files in proc and sys."""
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def limited(limit: str, used: int, cache: int = 0) -> dict[str, str]:
    """Files of a cgroup v2, below its own folder."""
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon {used - cache}\ninactive_file {cache}\nactive_file 0\n",
    }


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_without_a_limit_the_machine_is_all_there_is(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", **below("sys/fs/cgroup", limited("max", GIB))}
    assert memory(root(tmp_path, files)) == HostMemory(
        total_bytes=16 * GIB, available_bytes=8 * GIB
    )
    assert memory(root(tmp_path / "bare", {})).limit_bytes is None


def test_a_cgroup_v2_limit_is_less_what_is_used_but_for_cached_files(tmp_path: Path) -> None:
    group = below("sys/fs/cgroup", limited(str(6 * GIB), 5 * GIB, cache=2 * GIB))
    found = memory(root(tmp_path, {"proc/self/cgroup": "0::/\n", **group}))
    assert found == HostMemory(total_bytes=6 * GIB, available_bytes=3 * GIB, limit_bytes=6 * GIB)


def test_the_tightest_cgroup_around_the_process_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/system.slice/docker-1.scope\n",
        **below("sys/fs/cgroup/system.slice/docker-1.scope", limited(str(12 * GIB), GIB)),
        **below("sys/fs/cgroup/system.slice", limited(str(4 * GIB), 3 * GIB)),
        **below("sys/fs/cgroup", limited("max", 9 * GIB)),
    }
    assert memory(root(tmp_path, files)) == HostMemory(
        total_bytes=4 * GIB, available_bytes=GIB, limit_bytes=4 * GIB
    )


@pytest.mark.parametrize("path", ["/docker/abc", "/"], ids=["host's path", "own namespace"])
def test_a_cgroup_v1_limit_counts_wherever_it_is_mounted(path: str, tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": f"9:cpu:/x\n4:memory:{path}\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB // 2}\n",
    }
    found = memory(root(tmp_path, files))
    assert (found.total_bytes, found.limit_bytes) == (2 * GIB, 2 * GIB)
    assert found.available_bytes >= GIB


def test_cgroup_v1_writes_no_limit_as_a_huge_one(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
    }
    assert memory(root(tmp_path, files)).limit_bytes is None


def test_a_full_container_has_nothing_left_rather_than_less(tmp_path: Path) -> None:
    group = below("sys/fs/cgroup", limited(str(GIB), 2 * GIB))
    assert memory(root(tmp_path, {"proc/self/cgroup": "0::/\n", **group})).available_bytes == 0


def test_this_machine_is_read_as_the_system_knows_it() -> None:
    found = host()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found.memory.available_bytes <= found.memory.total_bytes <= pages
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.shm_free_bytes <= found.shm_bytes
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    assert found.memlock_bytes == (None if limit == resource.RLIM_INFINITY else limit)
    flags = Path("/proc/cpuinfo").read_text()
    assert found.cpu_flags
    assert all(f" {flag}" in flags for flag in found.cpu_flags)


def test_the_disk_of_a_folder_still_to_be_made_is_that_of_what_is_there(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    free = free_disk_bytes(tmp_path / "a" / "b")
    assert abs(free - found.f_bavail * found.f_frsize) < GIB
