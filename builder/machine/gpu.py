"""One GPU, or MIG slice of one, from what nvidia-smi lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from builder import gpus as known
from builder.errors import LimitError
from builder.machine.ask import ask
from builder.machine.resources import memory

_SLICE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)\s]+)\)")
_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class InstalledGpu:
    """A GPU, or a MIG slice of one, that CUDA may use here.

    `sm` is 0 where neither the driver nor our table knows it. `mig` is a slice's profile
    ("3g.20gb"); its memory is what the profile's name says, for nvidia-smi tells no more. A GPU
    that shares the host's memory has that as its own.
    """

    index: int
    name: str
    sm: int
    memory_bytes: int
    free_bytes: int
    uuid: str = ""
    mig: str | None = None


def fields_of(line: str, fields: Sequence[str]) -> dict[str, str]:
    """A GPU's fields. What has no value is left out: `[N/A]`, `[Not Supported]`."""
    values = (value.strip() for value in line.split(",", len(fields) - 1))
    pairs = zip(fields, values, strict=False)
    return {
        name: value for name, value in pairs if value and value[0] not in "[<" and value != "N/A"
    }


def gpus_of(row: Mapping[str, str], program: str) -> list[InstalledGpu]:
    """The GPU of a row, or its MIG slices; none where it is broken or has MIG on without any."""
    if "name" not in row or "uuid" not in row:
        return []
    host = memory() if "memory.total" not in row else None
    total = host.total_bytes if host else int(float(row["memory.total"]) * _MIB)
    free = int(float(row["memory.free"]) * _MIB) if "memory.free" in row else total
    gpu = InstalledGpu(
        index=int(row["index"]),
        name=row["name"],
        sm=_sm(row),
        memory_bytes=total,
        free_bytes=host.available_bytes if host else free,
        uuid=row["uuid"],
    )
    if row.get("mig.mode.current") != "Enabled":
        return [gpu]
    return [_slice(gpu, *found) for found in _slices(program, gpu.uuid)]


def _sm(row: Mapping[str, str]) -> int:
    if re.fullmatch(r"\d+\.\d", row.get("compute_cap", "")):
        return int(row["compute_cap"].replace(".", ""))
    try:
        return known.sm(row["name"])
    except LimitError:
        return 0


def _slices(program: str, uuid: str) -> Iterator[tuple[str, str]]:
    """Profile and UUID of each MIG slice of a GPU."""
    ours = False
    for line in ask(program, "-L").out.splitlines():
        if line.startswith("GPU "):
            ours = f"UUID: {uuid}" in line
        elif ours and (found := _SLICE.match(line)):
            yield found[1], found[2]


def _slice(gpu: InstalledGpu, profile: str, uuid: str) -> InstalledGpu:
    size = re.search(r"(\d+)gb", profile)
    size_bytes = min(int(size[1]) * _GIB, gpu.memory_bytes) if size else gpu.memory_bytes
    return replace(gpu, uuid=uuid, mig=profile, memory_bytes=size_bytes, free_bytes=size_bytes)


def visible(gpus: Sequence[InstalledGpu], wanted: str | None) -> list[InstalledGpu]:
    """What CUDA sees: all, or up to the first entry of CUDA_VISIBLE_DEVICES that names none."""
    if wanted is None:
        return list(gpus)
    seen: list[InstalledGpu] = []
    for entry in (each.strip() for each in wanted.split(",")):
        matches = [
            gpu
            for gpu in gpus
            if entry == str(gpu.index)
            or (entry[:4] in ("GPU-", "MIG-") and gpu.uuid.startswith(entry))
        ]
        if not matches:
            break
        seen += [gpu for gpu in matches[:1] if gpu not in seen]
    return seen
