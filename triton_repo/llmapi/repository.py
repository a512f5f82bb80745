"""An engine of target `llmapi` in a repository: what the manifest says of it, and its files.

The engine's folder is the model's version folder: its `model.yaml` names what lies beside it by
relative paths, which the model settles when it is loaded. So a repository can be moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder import digest
from builder import manifest as manifests
from builder.artifact import Staging
from builder.errors import ArtifactError
from builder.limits import LIMITS
from builder.progress import Progress, silent
from builder.targets.llmapi.files import link
from triton_repo.llmapi.config import config
from triton_repo.llmapi.engine import LlmApiEngine
from triton_repo.models.pbtxt import to_text
from triton_repo.names import Names

_ROOM = Path(__file__).parent.parent / "runtime" / "llmapi"
_CODE = "trtbuild_code"
"""Of its own: what lies beside a model's weights may be Python too, and isn't to be run."""
ENTRY = "model.py"


def code() -> dict[str, Path | None]:
    """What the version folder needs of ours: path in that folder → the file to copy there.

    None is an empty file, which makes a folder a package.
    """
    return {
        ENTRY: _ROOM / ENTRY,
        f"{_CODE}/triton_repo/__init__.py": None,
        f"{_CODE}/triton_repo/runtime/__init__.py": None,
        **{
            f"{_CODE}/triton_repo/runtime/llmapi/{path.name}": path
            for path in sorted(_ROOM.glob("*.py"))
            if path.name != ENTRY
        },
    }


def digests() -> dict[str, str]:
    """The digest of each file of `code`, for the manifest."""
    return {name: digest.of(path) for name, path in code().items() if path}


def about(engine: LlmApiEngine, names: Names, name: str | None = None) -> dict[str, Any]:
    """What a repository's manifest says of this engine, among its `engines`."""
    return {
        "name": name or engine.name,
        "target": engine.target,
        "prefix": names.prefix,
        "models": {"tensorrt_llm": names.tensorrt_llm},
        "tokenizer_dir": names.engine_dir,
        "engine_dir": names.engine_dir,
        **{limit: getattr(engine, limit) for limit in LIMITS},
        "world_size": engine.world_size,
        "adapters": dict(engine.adapters),
    }


def place(
    engine: LlmApiEngine, names: Names, staging: Staging, *, progress: Progress = silent
) -> None:
    """Put the model into a repository that is being written.

    Raises ArtifactError where a file of the engine is gone, or has the name of ours.
    """
    folder = staging.path / names.engine_dir
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(to_text(config(names)))
    entries = engine.manifest.files
    if ENTRY in entries:
        raise ArtifactError(
            f"{engine.path} has a file of the name that Triton's model has",
            found=ENTRY,
            do="build it without --copy: the model's own code stays where it is then",
        )
    for name, path in code().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes() if path else b"")
    done, total = 0, engine.manifest.size_bytes
    for file in (manifests.NAME, *entries):
        if not (engine.path / file).is_file():
            raise ArtifactError(
                f"{engine.path} is not a whole engine", found=f"no {file}", do="build it again"
            )
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        link(engine.path / file, folder / file)
        if entry := entries.get(file):
            staging.record(f"{names.engine_dir}/{file}", entry.digest)
            done += entry.size_bytes
        progress(done, total)
