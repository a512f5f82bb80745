"""A machine with GPUs, TensorRT-LLM 1.2.1 or docker, as far as our programs can see: stand-ins."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.machine import ContainerEngine, InstalledTensorRtLlm, Nvidia

HERE = Path(__file__).parent
STRICT_FLAGS = HERE / "builder" / "trtllm"
"""Where the table of trtllm-build's flags is."""
VERSIONS = {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"}
H100 = "NVIDIA H100 80GB HBM3"
NVIDIA_SMI = """
import sys
GPUS = {gpus}
query = [word for word in sys.argv[1:] if word.startswith("--query-gpu=")]
if not query:
    print("| NVIDIA-SMI 590.44.01    Driver Version: 590.44.01    CUDA Version: 13.1     |")
    sys.exit()
for index, (name, capability, mib) in enumerate(GPUS):
    row = {{"index": index, "uuid": f"GPU-{{index}}", "name": name, "compute_cap": capability,
           "memory.total": mib, "memory.free": mib - 500, "driver_version": "590.44.01",
           "mig.mode.current": "Disabled"}}
    print(", ".join(str(row[field]) for field in query[0].partition("=")[2].split(",")))
"""
SMALL = ("--max-batch-size", "4", "--max-seq-len", "128", "--max-num-tokens", "128")
"""Limits that any GPU has room for."""
NO_GPU = Nvidia(present=False, problem="no NVIDIA driver", do="nothing")
DOCKER = ContainerEngine(name="docker", path="/usr/bin/docker", version="28.2.2", nvidia=True)
TENSORRT_LLM = InstalledTensorRtLlm(
    version="1.2.1", tensorrt="10.14.1.48", cuda="13.1.0", has_build=True, has_llmapi=True
)


@dataclass(frozen=True)
class StandInMachine:
    """What a process must be told to see it."""

    root: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(self.root / "site"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "CUDA_VERSION": "13.1.0.036",
            "STAND_IN_CALLS": str(self.root / "calls"),
            "STAND_IN_CONTAINERS": str(self.root / "containers"),
        }

    @property
    def calls(self) -> list[str]:
        """A line for each time that the compiler ran."""
        file = self.root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def add(self, program: str, script: Path) -> None:
        (self.root / "bin").mkdir(parents=True, exist_ok=True)
        file = self.root / "bin" / program
        search = f"PYTHONPATH={STRICT_FLAGS}"
        file.write_text(f'#!/bin/sh\nexec env {search} {sys.executable} -S {script} "$@"\n')
        file.chmod(0o755)

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be this machine for the test."""
        (self.root / "site").mkdir(parents=True)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(str(self.root / "site"))

    def add_gpus(self, *gpus: tuple[str, str, int]) -> None:
        """Each by name, compute capability and MiB."""
        self.root.mkdir(exist_ok=True)
        script = self.root / "nvidia_smi.py"
        script.write_text(NVIDIA_SMI.format(gpus=repr(gpus)))
        self.add("nvidia-smi", script)

    def add_tensorrt_llm(self, *, compiler: bool = True) -> None:
        """The package, which must never be imported, and its console script."""
        package = self.root / "site" / "tensorrt_llm"
        (package / "commands").mkdir(parents=True)
        (package / "llmapi").mkdir()
        (package / "__init__.py").write_text("raise AssertionError('imported')\n")
        (package / "llmapi" / "llm.py").touch()
        for name, version in VERSIONS.items():
            folder = self.root / "site" / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        if compiler:
            (package / "commands" / "build.py").touch()
            self.add("trtllm-build", HERE / "stand_in_trtllm_build.py")

    def add_docker(self) -> None:
        """With an image that has the compiler."""
        self.add("docker", HERE / "stand_in_docker.py")
        self.add("trtllm-build", HERE / "stand_in_trtllm_build.py")


def gpus(count: int = 1, name: str = H100) -> tuple[tuple[str, str, int], ...]:
    return ((name, "9.0", 81559),) * count


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def full_environment(machine: StandInMachine, **more: str) -> dict[str, str]:
    """For a process of its own."""
    return {**os.environ, **machine.environment, **more}
