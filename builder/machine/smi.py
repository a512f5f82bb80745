"""The NVIDIA GPUs of this machine and their driver, as nvidia-smi tells them.

Its CSV has changed over the years: old drivers lack fields, MIG and integrated GPUs leave fields
empty (`[N/A]`), and its failures are sentences. NVIDIA documents the forms in its manual page.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.machine.ask import Answer, ask
from builder.machine.gpu import InstalledGpu, fields_of, gpus_of, visible

_FIELDS = (
    *("index", "uuid", "compute_cap", "memory.total", "memory.free"),
    *("driver_version", "mig.mode.current", "name"),
)
"""The name is last: it may hold commas."""
_UNKNOWN_FIELD = re.compile(r'Field "([\w.]+)" is not a valid field')
_CUDA = re.compile(r"CUDA (?:UMD )?Version\s*:\s*([\d.]+)")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")

_REMEDIES: Mapping[str, str] = {
    "version mismatch": "reboot: the driver was updated while the old one was loaded"
    " (in a container: restart the container)",
    "communicate with the NVIDIA driver": "install NVIDIA's driver, or load it: modprobe nvidia",
    "No devices were found": "see that the GPU is plugged in and passed through"
    " (in a container: docker run --gpus all)",
    "Unknown Error": "restart the container: it has lost its access to the GPUs; else reboot",
    "Insufficient Permissions": "run as a user that may open /dev/nvidia*",
    "device handle": "see dmesg for an Xid of that GPU, then reset it or reboot",
    "GPU is lost": "see dmesg for an Xid of that GPU, then reset it or reboot",
    "no answer": "the driver hangs: see dmesg, then reboot",
}
"""Words of nvidia-smi → what to do about them."""


@dataclass(frozen=True, kw_only=True)
class Nvidia:
    """GPUs that may be used, and the driver; `cuda` is the newest CUDA that it takes.

    `hidden` GPUs are left out by CUDA_VISIBLE_DEVICES. `links` maps pairs of indexes to how they
    are joined, in nvidia-smi's words: NV18, PIX, SYS. `problem` is why there is no GPU or one less;
    `present` is False where there is no driver at all.
    """

    gpus: tuple[InstalledGpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    links: Mapping[tuple[int, int], str] | None = None
    hidden: int = 0
    problem: str | None = None
    do: str | None = None
    present: bool = True


def nvidia() -> Nvidia:
    """What nvidia-smi says. Never raises: where it fails, `problem` and `do` say how."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return _without_program()
    answer, fields = _query(program)
    rows = [fields_of(line, fields) for line in answer.out.splitlines() if line.strip()]
    rows = [row for row in rows if row.get("index", "").isdigit()]
    if not rows:
        return _failed(answer)
    found = [(row, gpus_of(row, program)) for row in rows]
    gpus = [gpu for _, each in found for gpu in each]
    usable = visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    problem, do = _trouble(answer, [row for row, each in found if not each])
    return Nvidia(
        gpus=tuple(usable),
        driver=rows[0].get("driver_version"),
        cuda=_cuda(program),
        links=_links(program) if len(rows) > 1 else None,
        hidden=len(gpus) - len(usable),
        problem=problem,
        do=do,
    )


def _query(program: str) -> tuple[Answer, Sequence[str]]:
    """The GPUs' fields in CSV; fields that this nvidia-smi doesn't know are left out."""
    fields = list(_FIELDS)
    while True:
        query = f"--query-gpu={','.join(fields)}"
        answer = ask(program, query, "--format=csv,noheader,nounits")
        unknown = _UNKNOWN_FIELD.search(answer.out + answer.error)
        if answer.ok or not unknown or unknown[1] not in fields:
            return answer, fields
        fields.remove(unknown[1])


def _cuda(program: str) -> str | None:
    """The newest CUDA that the driver takes: only the banner says it."""
    found = _CUDA.search(ask(program).out)
    return found[1] if found else None


def _links(program: str) -> dict[tuple[int, int], str] | None:
    """How each pair of GPUs is joined, from the matrix of `nvidia-smi topo -m`."""
    lines = re.sub(r"\x1b\[\d*m", "", ask(program, "topo", "-m").out).splitlines()
    rows = [re.split(r"\s+", line.strip()) for line in lines if re.match(r"\s*GPU\d+\s", line)]
    if len(rows) < 2:
        return None
    columns, matrix = [name for name in rows[0] if re.fullmatch(r"GPU\d+", name)], rows[1:]
    return {
        (int(columns[a][3:]), int(columns[b][3:])): matrix[a][b + 1]
        for a in range(min(len(columns), len(matrix)))
        for b in range(a + 1, len(columns))
        if len(matrix[a]) > b + 1
    }


def _without_program() -> Nvidia:
    if not _DRIVER_FILE.exists():
        return Nvidia(
            problem="no NVIDIA driver", do="nothing, unless this machine has a GPU", present=False
        )
    return Nvidia(
        problem="an NVIDIA driver, but no nvidia-smi",
        do="in a container: run it with NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    )


def _failed(answer: Answer) -> Nvidia:
    said = answer.out + answer.error
    if answer.ok and not said.strip():
        return Nvidia(problem="nvidia-smi lists no GPU", do=_REMEDIES["No devices were found"])
    remedies = (do for words, do in _REMEDIES.items() if words in said)
    do = next(remedies, "see dmesg, and that nvidia-smi runs")
    return Nvidia(problem=f"nvidia-smi: {answer.complaint}", do=do)


def _trouble(answer: Answer, without: Sequence[Mapping[str, str]]) -> tuple[str | None, str | None]:
    """What is wrong with one of several GPUs, and what to do about it."""
    if not answer.ok:
        failed = _failed(answer)
        return failed.problem, failed.do
    for row in without:
        if row.get("mig.mode.current") == "Enabled":
            do = "make one (nvidia-smi mig -cgi … -C) or turn MIG off"
            return f"GPU {row['index']} has MIG on and no slices", do
        return f"GPU {row['index']} doesn't answer", _REMEDIES["GPU is lost"]
    return None, None
