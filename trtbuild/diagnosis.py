"""What this machine can do: each part of it that matters, and the targets that follow."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder import versions
from builder.errors import MissingToolError
from builder.machine import Machine, this_machine
from builder.machine.finding import Finding, Target
from builder.machine.findings import driver_trouble, findings, gpus_that_run
from triton_repo import binary
from triton_repo.binary import TENSORRT_LLM, TritonServer

NO_GPU = "it needs an NVIDIA GPU of SM 80 or later"
CPU_EXTRA = "pip install 'trtbuild[cpu]'"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A machine's parts, and which targets it builds and serves."""

    findings: tuple[Finding, ...]
    targets: tuple[Target, ...]

    @property
    def possible(self) -> bool:
        """Whether it is of any use."""
        return any(target.possible for target in self.targets)


def diagnose(machine: Machine | None = None) -> Diagnosis:
    """Look at this machine."""
    machine = machine or this_machine()
    triton, why_not = _find_triton()
    folders = {"disk here": Path.cwd(), "disk for caches": cache_folder()}
    found = [
        *findings(machine, folders),
        _triton(triton, why_not),
        _python(),
        _openvino(),
    ]
    return Diagnosis(findings=tuple(found), targets=tuple(_targets(machine, triton, why_not)))


def cache_folder() -> Path:
    """Where a user's caches are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()


def _find_triton() -> tuple[TritonServer | None, MissingToolError | None]:
    try:
        return binary.find(), None
    except MissingToolError as error:
        return None, error


def _has_nvidias_backend(triton: TritonServer) -> bool:
    return (triton.backends / TENSORRT_LLM).is_dir()


def _triton(triton: TritonServer | None, why_not: MissingToolError | None) -> Finding:
    name = "Triton"
    if why_not is not None:
        found = "; ".join(filter(None, (why_not.what, why_not.found)))
        return Finding(name=name, level="warning", found=found, do=why_not.do or "")
    nvidias = triton is not None and _has_nvidias_backend(triton)
    use = "with NVIDIA's TensorRT-LLM backend" if nvidias else "for the openvino target"
    return Finding(name=name, level="ok", found=f"{triton and triton.path}, {use}")


def _python() -> Finding:
    numpy = importlib.metadata.version("numpy")
    found = f"{platform.python_version()} ({platform.machine()}), numpy {numpy}"
    return Finding(name="Python", level="ok", found=found)


def _openvino() -> Finding:
    version = _installed("openvino")
    if version is None:
        do = f"for engines on a CPU: {CPU_EXTRA}"
        return Finding(name="OpenVINO", level="warning", found="not installed", do=do)
    return Finding(name="OpenVINO", level="ok", found=version)


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _targets(
    machine: Machine, triton: TritonServer | None, why_not: MissingToolError | None
) -> Iterator[Target]:
    gpus, found = gpus_that_run(machine), machine.tensorrt_llm
    backend = triton is not None and _has_nvidias_backend(triton)
    yield _on_cpu(triton, why_not)
    native = [
        "" if gpus else NO_GPU,
        "" if found and found.has_build else f"install TensorRT-LLM {versions.LAST_WITH_ENGINES}",
    ]
    to_serve = "" if backend else "it builds; to serve, work in Triton's container"
    yield _target("tensorrt-llm", native, to_serve)
    contained = ["" if gpus else NO_GPU, *_container_lacks(machine)]
    image = versions.image(versions.LAST_WITH_ENGINES)
    yield _target("tensorrt-llm in a container", contained, f"build --container uses {image}")
    llmapi = ["" if gpus else NO_GPU]
    if not (found and found.has_llmapi):
        llmapi += _container_lacks(machine)
    yield _target("llmapi", llmapi, "")


def _on_cpu(triton: TritonServer | None, why_not: MissingToolError | None) -> Target:
    lacks = [
        "" if _installed("openvino") else CPU_EXTRA,
        (why_not.do or why_not.what) if why_not else "",
    ]
    if triton is not None and _has_nvidias_backend(triton):
        lacks.append("this Triton's TensorRT-LLM backend is NVIDIA's: use one without it")
    return _target("openvino", lacks, "")


def _container_lacks(machine: Machine) -> list[str]:
    engine = machine.container
    if engine is None:
        return ["install docker or podman"]
    if engine.problem:
        return [f"{engine.name} doesn't answer: {engine.do}"]
    toolkit = "" if engine.nvidia else "install the NVIDIA Container Toolkit"
    driver = driver_trouble(machine)
    return [toolkit, f"the driver is too old: {driver}" if driver else ""]


def _target(name: str, lacks: list[str], note: str) -> Target:
    wanted = list(dict.fromkeys(filter(None, lacks)))
    return Target(name=name, possible=not wanted, do="; ".join(wanted) or note)
