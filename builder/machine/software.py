"""TensorRT-LLM and the container engine of this machine: found and asked, never imported."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.machine.ask import ask
from builder.machine.probe import probe

COMPILER = "trtllm-build"
ENGINES = ("docker", "podman")
_CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
_HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-runtime", "nvidia-ctk")


@dataclass(frozen=True, kw_only=True)
class InstalledTensorRtLlm:
    """The TensorRT-LLM here, with the versions that an engine is bound to.

    `has_build` is whether `trtllm-build` and its module are there, `has_llmapi` whether the LLM
    API is. `python` is the interpreter that has it, None for this one.
    """

    version: str | None
    tensorrt: str | None
    cuda: str | None
    has_build: bool
    has_llmapi: bool
    python: str | None = None


@dataclass(frozen=True, kw_only=True)
class ContainerEngine:
    """Docker or podman. `nvidia` is whether it can hand GPUs to containers.

    `problem` is why it doesn't answer, with what to `do`.
    """

    name: str
    path: str
    version: str | None = None
    nvidia: bool = False
    problem: str | None = None
    do: str | None = None


def tensorrt_llm() -> InstalledTensorRtLlm | None:
    """The TensorRT-LLM of this Python, else of the Python that `trtllm-build` on the PATH uses."""
    compiler = shutil.which(COMPILER)
    found, python = probe(), None
    if found is None and compiler and (python := _interpreter(Path(compiler))):
        found = _probe_in(python)
    if found is None:
        return None
    return InstalledTensorRtLlm(
        version=found["version"],
        tensorrt=found["tensorrt"],
        cuda=found["cuda"],
        has_build=compiler is not None and bool(found["compiler"]),
        has_llmapi=bool(found["llmapi"]),
        python=python,
    )


def _interpreter(script: Path) -> str | None:
    """The Python in a console script's first line."""
    try:
        with script.open("rb") as file:
            found = re.match(rb"#!\s*(/\S*python[\d.]*)\s*$", file.readline())
    except OSError:
        return None
    return found[1].decode() if found else None


def _probe_in(python: str) -> Any:
    source = Path(__file__).with_name("probe.py").read_text()
    answer = ask(python, "-c", source)
    try:
        return json.loads(answer.out) if answer.ok else None
    except ValueError:
        return None


def container() -> ContainerEngine | None:
    """The first container engine that answers, else the first that is there."""
    found = [
        _ask_engine(name, path) for name in ENGINES if (path := shutil.which(name)) is not None
    ]
    answering = [engine for engine in found if engine.problem is None]
    return next(iter(answering + found), None)


def _ask_engine(name: str, path: str) -> ContainerEngine:
    answer = ask(path, "info", "--format", "{{json .}}")
    try:
        info = json.loads(answer.out) if answer.ok else {}
    except ValueError:
        info = {}
    if "host" in info:
        version = str((info.get("version") or {}).get("Version") or "unknown")
        return ContainerEngine(name="podman", path=path, version=version, nvidia=_has_cdi())
    if info.get("ServerVersion"):
        version = str(info["ServerVersion"])
        return ContainerEngine(name=name, path=path, version=version, nvidia=_has_runtime(info))
    problem = next(iter(info.get("ServerErrors") or ()), answer.complaint)
    return ContainerEngine(name=name, path=path, problem=problem, do=_remedy(name, problem))


def _has_runtime(info: Mapping[str, Any]) -> bool:
    """Whether Docker hands out GPUs: by NVIDIA's runtime, by its hook, or by CDI."""
    devices = [str(device.get("ID")) for device in info.get("DiscoveredDevices") or ()]
    return (
        "nvidia" in (info.get("Runtimes") or {})
        or any(device.startswith("nvidia.com/gpu") for device in devices)
        or any(shutil.which(hook) for hook in _HOOKS)
    )


def _has_cdi() -> bool:
    """Whether NVIDIA's toolkit has described the GPUs for podman."""
    return any("nvidia" in file.name for folder in _CDI_FOLDERS for file in folder.glob("*.*"))


def _remedy(name: str, problem: str) -> str:
    if "permission denied" in problem.lower():
        return "add yourself to its group: sudo usermod -aG docker $USER, then log in again"
    if name == "docker":
        return "start it: sudo systemctl start docker"
    return "see that podman info works"
