"""Finds a tritonserver and gives it a folder of backends that it can run our models with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import MissingToolError

TENSORRT_LLM = "tensorrtllm"
PYTHON_BACKENDS = {
    TENSORRT_LLM: "from triton_repo.runtime.tensorrtllm import TritonPythonModel  # noqa: F401\n"
}
"""Backends written in Python that we provide where NVIDIA's are missing: the source of model.py."""

_STUB = "triton_python_backend_stub"
_LIBRARY = "libtriton_python.so"


@dataclass(frozen=True, kw_only=True)
class TritonServer:
    """A tritonserver, its own backends, and where else it finds what it needs."""

    path: Path
    backends: Path
    stubs: Path | None = None
    caches: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def has_tensorrt_llm(self) -> bool:
        """Whether NVIDIA's TensorRT-LLM backend is there."""
        return (self.backends / TENSORRT_LLM).is_dir()


def find() -> TritonServer:
    """The tritonserver on the PATH, else the one in the nvidia-pytriton wheel.

    Raises MissingToolError where there is neither, or the wheel has none for this Python.
    """
    if on_path := shutil.which("tritonserver"):
        path = Path(on_path).resolve()
        return TritonServer(path=path, backends=path.parent.parent / "backends")
    # found, not imported: the package starts threads and takes a second
    spec = importlib.util.find_spec("pytriton")
    places = (spec.submodule_search_locations if spec else None) or []
    for place in places:
        root = Path(place) / "tritonserver"
        if (root / "bin" / "tritonserver").is_file():
            return _from_wheel(root)
    raise MissingToolError(
        "no tritonserver",
        found="none on the PATH, no nvidia-pytriton installed",
        do="install one: pip install 'trtbuild[cpu]', or work in a Triton container",
    )


def _from_wheel(root: Path) -> TritonServer:
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    stubs = root / "python_backend_stubs" / running
    if not (stubs / _STUB).is_file():
        have = sorted(p.name for p in stubs.parent.iterdir())
        raise MissingToolError(
            f"the tritonserver of nvidia-pytriton can't run models in Python {running}",
            found=f"support for {', '.join(have)}",
            do="use one of these versions of Python",
        )
    _require_numpy_1()
    return TritonServer(
        path=root / "bin" / "tritonserver",
        backends=root / "backends",
        stubs=stubs,
        caches=root / "caches",
        environment=_wheel_environment(),
    )


def _require_numpy_1() -> None:
    """With numpy 2 this Triton's models load, and then every tensor that they return is empty."""
    found = importlib.metadata.version("numpy")
    if int(found.partition(".")[0]) > 1:
        raise MissingToolError(
            "the tritonserver of nvidia-pytriton needs numpy 1",
            found=f"numpy {found}",
            do="pip install 'numpy<2'",
        )


def _wheel_environment() -> dict[str, str]:
    """The stub takes its Python from the PATH, and its libpython from the loader."""
    library = sysconfig.get_config_var("LIBDIR")
    paths = [str(library or ""), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
    }


def needs_own_backends(server: TritonServer, sources: Mapping[str, str]) -> bool:
    """Whether the server lacks a backend of `sources`, or keeps its Python stub elsewhere."""
    return server.stubs is not None or any(
        not (server.backends / name).is_dir() for name in sources
    )


def make_backends(server: TritonServer, sources: Mapping[str, str], folder: Path) -> None:
    """Fill `folder` with the server's backends and, where it has none of a name, `sources`.

    Triton refuses a Python-based backend whose libtriton_python.so is a link out of the folder,
    so that file is a copy; everything else is linked.
    """
    for own in sorted(server.backends.iterdir()):
        if own.name != "python":
            (folder / own.name).symlink_to(own)
    python = folder / "python"
    python.mkdir()
    for file in (server.backends / "python").iterdir():
        if file.name == _LIBRARY:
            shutil.copyfile(file, python / file.name)
        elif file.name != "__pycache__":
            (python / file.name).symlink_to(file)
    if server.stubs is not None:
        (python / _STUB).symlink_to(server.stubs / _STUB)
    for name, source in sources.items():
        if not (folder / name).exists():
            (folder / name).mkdir()
            (folder / name / "model.py").write_text(source)
