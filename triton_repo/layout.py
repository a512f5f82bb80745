"""Writes a model repository for an engine, whole or not at all, and reads one back."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from builder import artifact, digest
from builder import manifest as manifests
from builder.artifact import Staging
from builder.errors import ArtifactError
from builder.manifest import Manifest
from builder.progress import Progress, silent
from triton_repo import engine as engines
from triton_repo.contract import MODELS
from triton_repo.engine import ENGINE_DIR, Engine
from triton_repo.options import RepositoryOptions

KIND = "repository"
CONFIG = "config.pbtxt"

_RUNTIME = Path(__file__).with_name("runtime")
_AGAIN = "write it again with trtbuild repo"
_LIMITS = ("max_batch_size", "max_seq_len", "max_input_len", "max_num_tokens", "max_beam_width")
_PYTHON_MODELS = ("preprocessing", "postprocessing")


@dataclass(frozen=True, kw_only=True)
class ServedRepository:
    """What a server needs to know of a repository; limits in tokens and requests."""

    path: Path
    name: str
    target: str
    tokenizer_dir: Path
    engine_dir: Path
    max_batch_size: int
    max_seq_len: int
    max_input_len: int
    max_num_tokens: int
    max_beam_width: int


def write_repository(
    engine: Path,
    out: Path,
    *,
    name: str | None = None,
    options: RepositoryOptions | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Write the repository of the engine folder `engine` to `out`; skip it where it is there.

    The engine's files are hard links where the file system allows. `name` is the served model's,
    by default the engine's. `progress` counts bytes. Raises ArtifactError for a folder that isn't
    a whole engine, LimitError for options that it can't honour, OutputError where `out` can't be
    written.
    """
    source = engines.read(engine)
    options = options or RepositoryOptions()
    wanted = _manifest(source, name or source.name, options)
    if found := artifact.finished(out, wanted):
        return found
    configs = _configs(source, options)
    if not _same_file_system(engine, out.resolve()):
        sizes = (entry.size_bytes for entry in source.manifest.files.values())
        artifact.require_space(out.resolve(), sum(sizes))
    with artifact.stage(out, wanted) as staging:
        for model, text in configs.items():
            (staging.path / model / "1").mkdir(parents=True)
            (staging.path / model / CONFIG).write_text(text)
        for model in _PYTHON_MODELS:
            shutil.copyfile(_RUNTIME / f"{model}.py", staging.path / model / "1" / "model.py")
        # Triton wants the folder, and tools that copy repositories lose empty ones
        (staging.path / "ensemble" / "1" / ".keep").touch()
        _link_engine(source, staging, progress)
    return manifests.read(out)


def describe(repository: Path) -> ServedRepository:
    """What the repository in `repository` serves. Raises ArtifactError where it isn't ours."""
    about = manifests.read(repository, KIND).about
    path = repository.resolve()
    try:
        return ServedRepository(
            path=path,
            name=str(about["name"]),
            target=str(about["target"]),
            tokenizer_dir=path / str(about["tokenizer_dir"]),
            engine_dir=path / ENGINE_DIR,
            **{limit: int(about[limit]) for limit in _LIMITS},
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{repository / manifests.NAME} doesn't say what the repository serves",
            found=f"about.{error}",
            do=_AGAIN,
        ) from error


def check(repository: Path) -> Manifest:
    """Read the repository back: its files, and every config against contract and engine.

    Raises ArtifactError at the first thing that is wrong.
    """
    from triton_repo.models.check import check_config

    manifest = manifests.read(repository, KIND)
    artifact.verify(repository, manifest)
    engine = engines.read(repository / ENGINE_DIR)
    for model in MODELS:
        check_config(repository, model, engine)
    return manifest


def _configs(engine: Engine, options: RepositoryOptions) -> dict[str, str]:
    from triton_repo import models
    from triton_repo.models.pbtxt import to_text

    return {name: to_text(build(engine, options)) for name, build in models.builders().items()}


def _manifest(engine: Engine, name: str, options: RepositoryOptions) -> Manifest:
    runtime = {model: digest.of(_RUNTIME / f"{model}.py") for model in _PYTHON_MODELS}
    about: dict[str, Any] = {
        "name": name,
        "target": engine.target,
        "models": list(MODELS),
        "tokenizer_dir": ENGINE_DIR,
        **{limit: getattr(engine, limit) for limit in _LIMITS},
    }
    return Manifest(
        kind=KIND,
        made_by={"trtbuild": _version()},
        source={**manifests.identity(engine.path), "runtime": runtime},
        options={"name": name, **asdict(options)},
        about=about,
    )


def _version() -> str:
    try:
        return version("trtbuild")
    except PackageNotFoundError:
        return "unknown"


def _same_file_system(one: Path, place: Path) -> bool:
    while not place.exists():
        place = place.parent
    return one.stat().st_dev == place.stat().st_dev


def _link_engine(engine: Engine, staging: Staging, progress: Progress) -> None:
    """The engine's files and manifest under `ENGINE_DIR`; digests are the engine manifest's."""
    files = {name: entry.size_bytes for name, entry in engine.manifest.files.items()}
    total, done = sum(files.values()), 0
    for name, size_bytes in {manifests.NAME: 0, **files}.items():
        target = staging.path / ENGINE_DIR / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(engine.path / name, target)
        if entry := engine.manifest.files.get(name):
            staging.record(f"{ENGINE_DIR}/{name}", entry.digest)
        done += size_bytes
        progress(done, total)


def _link(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ArtifactError(
            f"{source.parent} is not a whole engine",
            found=f"no {source.name}",
            do="build it with trtbuild build",
        )
    try:
        os.link(source, target)
    except OSError:
        # another file system, or one without links
        shutil.copyfile(source, target)
