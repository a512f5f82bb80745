"""What this machine can build and run: its GPUs, its TensorRT-LLM, its container engine."""

from __future__ import annotations

from dataclasses import dataclass

from builder.machine import software
from builder.machine.gpu import InstalledGpu
from builder.machine.resources import Host, host
from builder.machine.smi import Nvidia, nvidia
from builder.machine.software import ContainerEngine, InstalledTensorRtLlm

__all__ = [
    "ContainerEngine",
    "Host",
    "InstalledGpu",
    "InstalledTensorRtLlm",
    "Machine",
    "Nvidia",
    "container_engine",
    "gpus",
    "tensorrt_llm",
    "this_machine",
]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, asked once."""

    nvidia: Nvidia
    tensorrt_llm: InstalledTensorRtLlm | None
    container: ContainerEngine | None
    host: Host


def this_machine() -> Machine:
    """Ask everything: a second or two where nvidia-smi and the container engine answer."""
    return Machine(
        nvidia=nvidia(),
        tensorrt_llm=tensorrt_llm(),
        container=software.container(),
        host=host(),
    )


def gpus() -> list[InstalledGpu]:
    """The GPUs that CUDA may use here; [] without any, or where nvidia-smi fails."""
    return list(nvidia().gpus)


def tensorrt_llm() -> InstalledTensorRtLlm | None:
    """The TensorRT-LLM here, None without; it isn't imported."""
    return software.tensorrt_llm()


def container_engine() -> str | None:
    """The path of a docker or podman that answers, else None."""
    found = software.container()
    return found.path if found and found.problem is None else None
