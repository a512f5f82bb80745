"""What a machine's parts mean to trtbuild: which are well, and what to do about the others.

Sizes of shared memory and the memlock limit are those of NVIDIA's guides for its containers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from builder import versions
from builder.fit.place import described
from builder.machine import Machine
from builder.machine.finding import Finding, Level
from builder.machine.resources import free_disk_bytes
from builder.memory.rank import gib
from builder.versions import OLDEST_DRIVERS, numbers

OLDEST_SM = 80
"""TensorRT-LLM 1.2's support matrix begins with Ampere."""
_GIB = 1 << 30
_TRITON_SHM_BYTES = 64 << 20
_LEAST_DISK_BYTES = 20 * _GIB
_CPU_FLAGS = ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def findings(machine: Machine, folders: dict[str, Path]) -> list[Finding]:
    """One finding for each part; `folders` are those whose disks matter, by what they are for."""
    found = [finding for look in _LOOKS for finding in look(machine)]
    return found + [_disk(purpose, folder) for purpose, folder in folders.items()]


def gpus_that_run(machine: Machine) -> int:
    """How many of the GPUs TensorRT-LLM runs on."""
    return sum(gpu.sm >= OLDEST_SM or not gpu.sm for gpu in machine.nvidia.gpus)


def wanted_shm_bytes(ranks: int) -> int:
    """Shared memory to give a container: 2 GiB for the Python models, 1 GiB for each rank."""
    return (2 + ranks) * _GIB


def in_words(size_bytes: int) -> str:
    """Bytes as people read them, small ones too."""
    return gib(size_bytes) if size_bytes >= _GIB else f"{size_bytes / (1 << 20):.0f} MiB"


def driver_trouble(machine: Machine) -> str | None:
    """What to do about a driver that is too old for the newest containers; None if it isn't."""
    release, driver = versions.RELEASES[0], machine.nvidia.driver
    oldest = OLDEST_DRIVERS[numbers(release.cuda or "")[0]]
    if driver is None or numbers(driver) >= numbers(oldest):
        return None
    return f"update it to {oldest} or newer: {versions.image(release)} has CUDA {release.cuda}"


def _gpus(machine: Machine) -> Iterator[Finding]:
    nvidia = machine.nvidia
    if not nvidia.gpus and not nvidia.hidden:
        found, do = nvidia.problem or "none", nvidia.do or ""
        if nvidia.present:
            yield Finding(name="GPU", level="problem", found=found, do=do)
        else:
            do = "nothing for the openvino target; the others need a GPU"
            yield Finding(name="GPU", level="warning", found=found, do=do)
        return
    if nvidia.problem:
        yield Finding(name="GPU", level="problem", found=nvidia.problem, do=nvidia.do or "")
    if nvidia.hidden:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        found = f"CUDA_VISIBLE_DEVICES={visible} hides {nvidia.hidden}"
        yield Finding(name="GPU", level="warning", found=found, do="unset it to use them all")
    old = [gpu for gpu in nvidia.gpus if 0 < gpu.sm < OLDEST_SM]
    for gpu in nvidia.gpus:
        free = f"{gib(gpu.free_bytes)} free of {gib(gpu.memory_bytes)}"
        found = f"{gpu.index}: {described((gpu,))[2:]}, {free}"
        do = "TensorRT-LLM 1.2 needs Ampere (SM 80) or later" if gpu in old else ""
        yield Finding(name="GPU", level="problem" if old else "ok", found=found, do=do)
    if any(gpu.mig for gpu in nvidia.gpus):
        found = "MIG is on: CUDA gives a process one slice"
        do = "build with one rank, and choose the slice with CUDA_VISIBLE_DEVICES=MIG-…"
        yield Finding(name="MIG", level="warning", found=found, do=do)


def _driver(machine: Machine) -> Iterator[Finding]:
    nvidia = machine.nvidia
    if nvidia.driver:
        trouble = driver_trouble(machine)
        found = f"{nvidia.driver}, takes CUDA up to {nvidia.cuda or 'unknown'}"
        level: Level = "warning" if trouble else "ok"
        yield Finding(name="driver", level=level, found=found, do=trouble or "")


def _links(machine: Machine) -> Iterator[Finding]:
    links = machine.nvidia.links
    if not links or len(machine.nvidia.gpus) < 2:
        return
    kinds = sorted(set(links.values()))
    slow = [kind for kind in kinds if not kind.startswith("NV")]
    if not slow:
        yield Finding(name="GPU links", level="ok", found=f"NVLink ({', '.join(kinds)})")
        return
    pairs = [f"{a}-{b} {kind}" for (a, b), kind in links.items() if kind in slow]
    yield Finding(
        name="GPU links",
        level="warning",
        found=f"no NVLink: {', '.join(pairs[:4])}{' …' if len(pairs) > 4 else ''}",
        do="prefer --pp over --tp: layers move less over PCIe than tensors do",
    )


def _tensorrt_llm(machine: Machine) -> Iterator[Finding]:
    found, name = machine.tensorrt_llm, "TensorRT-LLM"
    if found is None:
        do = "with a GPU: work in its container, or build --container"
        yield Finding(name=name, level="warning", found="not installed", do=do)
        return
    parts = [
        f"{found.version or 'unknown version'}",
        f"TensorRT {found.tensorrt}" if found.tensorrt else "",
        f"CUDA {found.cuda}" if found.cuda else "",
        "trtllm-build" if found.has_build else "no trtllm-build",
        "LLM API" if found.has_llmapi else "no LLM API",
    ]
    do = f"for engines: TensorRT-LLM {versions.LAST_WITH_ENGINES}, or build --container"
    if found.has_build:
        yield Finding(name=name, level="ok", found=", ".join(filter(None, parts)))
        return
    yield Finding(name=name, level="warning", found=", ".join(filter(None, parts)), do=do)


def _container(machine: Machine) -> Iterator[Finding]:
    found, name = machine.container, "containers"
    if found is None:
        do = "install docker or podman to use NVIDIA's images"
        yield Finding(name=name, level="warning", found="neither docker nor podman", do=do)
    elif found.problem:
        yield Finding(
            name=name,
            level="warning",
            found=f"{found.name} doesn't answer: {found.problem}",
            do=found.do or "",
        )
    elif machine.nvidia.gpus and not found.nvidia:
        yield Finding(
            name=name,
            level="problem",
            found=f"{found.name} {found.version}, which can't hand out GPUs",
            do="install the NVIDIA Container Toolkit and run nvidia-ctk for it",
        )
    else:
        gpus = ", hands out GPUs" if found.nvidia else ""
        yield Finding(name=name, level="ok", found=f"{found.name} {found.version}{gpus}")


def _shared_memory(machine: Machine) -> Iterator[Finding]:
    size = machine.host.shm_bytes
    gpus = len(machine.nvidia.gpus)
    wanted = wanted_shm_bytes(gpus) if gpus else _TRITON_SHM_BYTES
    found = f"{in_words(size)} in /dev/shm, {in_words(machine.host.shm_free_bytes)} free"
    if size >= wanted:
        yield Finding(name="shared memory", level="ok", found=found)
        return
    level: Level = "warning" if size >= _TRITON_SHM_BYTES else "problem"
    do = f"give the container {in_words(wanted)}: --shm-size={wanted >> 20}m (compose: shm_size)"
    yield Finding(name="shared memory", level=level, found=found, do=do)


def _memlock(machine: Machine) -> Iterator[Finding]:
    limit, gpus = machine.host.memlock_bytes, len(machine.nvidia.gpus)
    if limit is None:
        yield Finding(name="memlock", level="ok", found="unlimited")
        return
    found = in_words(limit) + ("" if gpus > 1 else ", which matters between GPUs only")
    do = "ulimit -l unlimited (docker: --ulimit memlock=-1): NCCL and MPI pin memory"
    level: Level = "warning" if gpus > 1 else "ok"
    yield Finding(name="memlock", level=level, found=found, do=do if gpus > 1 else "")


def _memory(machine: Machine) -> Iterator[Finding]:
    memory = machine.host.memory
    limit = ", the container's limit" if memory.limit_bytes else ""
    found = f"{in_words(memory.available_bytes)} free of {in_words(memory.total_bytes)}{limit}"
    low = memory.available_bytes < 4 * _GIB
    do = "free some: a build holds a rank's weights in it" if low else ""
    yield Finding(name="host memory", level="warning" if low else "ok", found=found, do=do)


def _cpu(machine: Machine) -> Iterator[Finding]:
    host = machine.host
    has = [flag for flag in _CPU_FLAGS if flag in host.cpu_flags]
    found = f"{host.cpu}, {host.cores} cores, {', '.join(has) or 'no vector instructions'}"
    slow = "avx2" not in has
    do = "expect little of the openvino target: OpenVINO's kernels are made for AVX2 and later"
    level: Level = "warning" if slow else "ok"
    yield Finding(name="CPU", level=level, found=found, do=do if slow else "")


def _disk(purpose: str, folder: Path) -> Finding:
    free = free_disk_bytes(folder)
    low = free < _LEAST_DISK_BYTES
    do = "free some: each stage takes about the model's size" if low else ""
    found = f"{in_words(free)} free at {folder}"
    return Finding(name=purpose, level="warning" if low else "ok", found=found, do=do)


_LOOKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    _gpus,
    _driver,
    _links,
    _tensorrt_llm,
    _container,
    _shared_memory,
    _memlock,
    _memory,
    _cpu,
)
