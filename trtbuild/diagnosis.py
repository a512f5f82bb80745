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
from triton_repo.launch import binary
from triton_repo.launch.binary import TritonServer

LLM_API = "llmapi"
NO_GPU = "it needs an NVIDIA GPU of SM 80 or later"
CPU_EXTRA = "pip install 'trtbuild[cpu]'"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A machine's parts, and which targets it builds and serves."""

    findings: tuple[Finding, ...]
    targets: tuple[Target, ...]

    @property
    def possible(self) -> bool:
        """Whether it makes engines or serves: a folder for the LLM API can be made anywhere."""
        return any(
            target.serves or (target.builds and target.name != LLM_API) for target in self.targets
        )


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


def _triton(triton: TritonServer | None, why_not: MissingToolError | None) -> Finding:
    name = "Triton"
    if why_not is not None:
        found = "; ".join(filter(None, (why_not.what, why_not.found)))
        return Finding(name=name, level="warning", found=found, do=why_not.do or "")
    nvidias = triton is not None and triton.has_tensorrt_llm
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
    found = machine.tensorrt_llm
    nvidias = triton is not None and triton.has_tensorrt_llm
    no_gpu = "" if gpus_that_run(machine) else NO_GPU
    no_triton = (why_not.do or why_not.what) if why_not else ""
    if nvidias:
        no_triton = "this Triton's TensorRT-LLM backend is NVIDIA's: use one without it"
    no_openvino = "" if _installed("openvino") else CPU_EXTRA
    yield _target("openvino", [no_openvino], [no_triton])
    no_compiler = f"install TensorRT-LLM {versions.LAST_WITH_ENGINES}"
    native = [no_gpu, "" if found and found.has_build else no_compiler]
    yield _target("tensorrt-llm", native, ["" if nvidias else "work in Triton's container"])
    contained = [no_gpu, *_container_lacks(machine)]
    image = versions.image(versions.LAST_WITH_ENGINES)
    yield _target("tensorrt-llm in a container", contained, [], f"build --container uses {image}")
    newer = found and found.has_llmapi and not versions.has_engines(found.version or "0")
    to_serve = [no_gpu, *([] if newer else _container_lacks(machine))]
    yield _target(LLM_API, [], to_serve, "serve it under TensorRT-LLM 1.3")


def _container_lacks(machine: Machine) -> list[str]:
    engine = machine.container
    if engine is None:
        return ["install docker or podman"]
    if engine.problem:
        return [f"{engine.name} doesn't answer: {engine.do}"]
    toolkit = "" if engine.nvidia else "install the NVIDIA Container Toolkit"
    driver = driver_trouble(machine)
    return [toolkit, f"the driver is too old: {driver}" if driver else ""]


def _target(name: str, to_build: list[str], to_serve: list[str], note: str = "") -> Target:
    """A target by what it lacks; what isn't built isn't served either."""
    build, serve = (list(dict.fromkeys(filter(None, each))) for each in (to_build, to_serve))
    lacks = [*build, *(["to serve it: " + ", ".join(serve)] if serve else [])]
    return Target(
        name=name, builds=not build, serves=not (build or serve), do="; ".join(lacks) or note
    )
