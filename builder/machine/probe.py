"""Where TensorRT-LLM is in a Python, without importing it: that takes half a minute and a GPU.

Runs in this Python, and by its text (`python -c`) in the one that `trtllm-build` belongs to; so it
imports nothing of ours.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

_CUDA_FILE = Path("/usr/local/cuda/version.json")


def probe() -> dict[str, Any] | None:
    """Versions and abilities of the TensorRT-LLM of this Python; None without one."""
    spec = importlib.util.find_spec("tensorrt_llm")
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    # a folder of that name, without the package's own file, is no installation
    places = [place for place in places if (place / "__init__.py").is_file()]
    if not places:
        return None
    return {
        "version": _version("tensorrt_llm", "tensorrt-llm") or _own_version(places),
        "tensorrt": _version("tensorrt", "tensorrt_cu13", "tensorrt_cu12"),
        "cuda": _cuda(),
        "compiler": any((place / "commands" / "build.py").is_file() for place in places),
        "llmapi": any((place / "llmapi" / "llm.py").is_file() for place in places),
    }


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _cuda() -> str | None:
    """The CUDA of NVIDIA's containers, else of the toolkit in its usual place."""
    if found := os.environ.get("CUDA_VERSION"):
        return found
    try:
        return str(json.loads(_CUDA_FILE.read_text())["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _own_version(places: list[Path]) -> str | None:
    """What `tensorrt_llm/version.py` says: `__version__ = "1.2.1"`."""
    for place in places:
        file = place / "version.py"
        for line in file.read_text().splitlines() if file.is_file() else ():
            name, _, value = line.partition("=")
            if name.strip() == "__version__":
                return value.strip().strip("\"'")
    return None


if __name__ == "__main__":
    print(json.dumps(probe()))
