"""A stand-in for nvidia-smi, as strict as its manual page: what it doesn't know it refuses.

The forms are those of NVIDIA's manual page, its MIG user guide and reports of its failures; no
real nvidia-smi was at hand.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

BANNER = """\
Fri Nov 27 12:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {driver}             Driver Version: {driver}     CUDA Version: {cuda}      |
|-----------------------------------------+------------------------+----------------------+
"""
NEW_BANNER = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {driver}              KMD Version: {driver}     CUDA UMD Version: {cuda}     |
+-----------------------------------------+------------------------+----------------------+
"""
_PROGRAM = """\
#!{python} -IS
import json, sys, time
state = json.loads(open({state!r}).read())
arguments = sys.argv[1:]
if state["hangs"]:
    time.sleep(60)
if state["failure"]:
    print(state["failure"])
    sys.exit(state["code"])
if not arguments:
    print(state["banner"])
elif arguments == ["-L"]:
    for gpu in state["gpus"]:
        print(f"GPU {{gpu['index']}}: {{gpu['name']}} (UUID: {{gpu['uuid']}})")
        for at, (profile, uuid) in enumerate(gpu["slices"]):
            print(f"  MIG {{profile:<11}} Device  {{at}}: (UUID: {{uuid}})")
elif arguments == ["topo", "-m"]:
    print(state["topology"])
elif len(arguments) == 2 and arguments[0].startswith("--query-gpu="):
    assert arguments[1] == "--format=csv,noheader,nounits", arguments
    fields = arguments[0].partition("=")[2].split(",")
    for name in fields:
        if name not in state["fields"]:
            print(f'Field "{{name}}" is not a valid field to query.\\n')
            sys.exit(2)
    for gpu in state["gpus"]:
        print(", ".join(gpu[name] for name in fields))
else:
    print(f"Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.")
    sys.exit(2)
"""

FIELDS = (
    *("index", "uuid", "name", "compute_cap", "memory.total", "memory.free"),
    *("memory.used", "driver_version", "mig.mode.current"),
)
"""Of a current driver; those before 510 have no compute_cap."""


def gpu(name: str, *, cap: str = "[N/A]", total: str, free: str = "", **other: object) -> dict:
    """A GPU's fields, as the query prints them: memory in MiB."""
    return {
        "name": name,
        "compute_cap": cap,
        "memory.total": total,
        "memory.free": free or total,
        "mig.mode.current": "[N/A]",
        "slices": [],
        **other,
    }


H100 = gpu("NVIDIA H100 80GB HBM3", cap="9.0", total="81559", free="80994") | {
    "mig.mode.current": "Disabled"
}
A100 = gpu("NVIDIA A100-SXM4-40GB", cap="8.0", total="40960", free="40330") | {
    "mig.mode.current": "Disabled"
}
L4 = gpu("NVIDIA L4", cap="8.9", total="23034", free="22563")


@dataclass(kw_only=True)
class NvidiaSmi:
    """What the stand-in says. `failure` is printed in place of all else, with exit code `code`."""

    gpus: tuple[dict, ...] = ()
    driver: str = "590.48.01"
    cuda: str = "13.1"
    fields: tuple[str, ...] = FIELDS
    banner: str = BANNER
    topology: str = ""
    failure: str = ""
    code: int = 0
    hangs: bool = False
    extra: dict = field(default_factory=dict)

    def install(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it, and nothing else, on the PATH."""
        folder.mkdir(exist_ok=True)
        rows = [
            {"index": str(at), "uuid": f"GPU-{at:08d}-aaaa", "driver_version": self.driver, **each}
            for at, each in enumerate(self.gpus)
        ]
        banner = self.banner.format(driver=self.driver, cuda=self.cuda)
        state = folder / "nvidia-smi.json"
        state.write_text(json.dumps({**asdict(self), "gpus": rows, "banner": banner}))
        program(folder / "nvidia-smi", _PROGRAM.format(python=sys.executable, state=str(state)))
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def program(path: Path, text: str) -> None:
    """Write a program that can be run."""
    path.write_text(text)
    path.chmod(0o755)
