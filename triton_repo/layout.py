"""Writes a model repository for one engine or several, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from builder import artifact
from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.manifest import Manifest
from builder.progress import Progress, silent
from triton_repo.parts import AnyPlanned, Part, plan
from triton_repo.planned import Planned
from triton_repo.served import KIND, ServedEngine, ServedRepository, describe
from triton_repo.settings import rules
from triton_repo.settings.options import RepositoryOptions

__all__ = [
    "KIND",
    "Part",
    "ServedEngine",
    "ServedRepository",
    "check",
    "describe",
    "write_parts",
    "write_repository",
]


def write_repository(
    engine: Path,
    out: Path,
    *,
    name: str | None = None,
    options: RepositoryOptions | None = None,
    adapters: Mapping[str, Path] | None = None,
    version: int = 1,
    progress: Progress = silent,
) -> Manifest:
    """Write the repository of the engine folder `engine` to `out`; skip it where it is there.

    `name` is the served model's, by default the engine's. Raises as `write_parts` does.
    """
    part = Part(
        engine=engine,
        name=name,
        options=options or RepositoryOptions(),
        adapters=adapters or {},
    )
    return write_parts([part], out, version=version, progress=progress)


def write_parts(
    parts: Sequence[Part],
    out: Path,
    *,
    version: int = 1,
    progress: Progress = silent,
    note: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write the repository of several engines to `out`, at once; skip it where it is there.

    The engines' files are hard links where the file system allows. `version` is the models'.
    `progress` counts bytes, `note` is told of settings that do nothing here. Raises ArtifactError
    for a folder that isn't a whole engine, ModelError for an adapter that doesn't fit, LimitError
    for options that can't be honoured, OutputError where `out` can't be written.
    """
    planned = plan(parts, version)
    for each in planned:
        if isinstance(each, Planned):
            for line in rules.notes(each.asked, each.engine):
                note(line)
    wanted = _manifest(planned, version)
    if found := artifact.finished(out, wanted):
        return found
    _require_space(planned, out.resolve())
    done, total = 0, sum(each.engine.manifest.size_bytes for each in planned)
    with artifact.stage(out, wanted) as staging:
        for each in planned:
            each.place(staging, _after(done, total, progress))
            done += each.engine.manifest.size_bytes
    return manifests.read(out)


def _after(before: int, total: int, progress: Progress) -> Progress:
    """The progress of one engine among several."""
    return lambda done, _: progress(before + done, total)


def check(repository: Path) -> Manifest:
    """Read a repository of ours back: its files, its configs and what they say of its engines.

    Raises ArtifactError for the first thing that is wrong; `lint` has them all.
    """
    from triton_repo.lint import lint

    manifest = manifests.read(repository, KIND)
    artifact.verify(repository, manifest)
    for finding in lint(repository, files=False):
        if finding.severity == "error":
            raise ArtifactError(
                f"{finding.file}: {finding.field}", found=finding.found, do=finding.do
            )
    return manifest


def _manifest(planned: Sequence[AnyPlanned], of_models: int) -> Manifest:
    served = [each for each in planned if not each.names.suffix]
    return Manifest(
        kind=KIND,
        made_by={"trtbuild": manifests.own_version()},
        source={"engines": [each.source() for each in planned]},
        options={"version": of_models, "engines": [each.settings() for each in planned]},
        about={
            "name": served[0].name,
            "target": served[0].engine.target,
            "engines": [each.about() for each in served],
        },
    )


def _require_space(planned: Sequence[AnyPlanned], place: Path) -> None:
    """Of the files that can't be links. Raises OutputError where the disk is too full."""
    while not place.exists():
        place = place.parent
    disk = place.stat().st_dev
    engines = [each.engine for each in planned]
    needed = sum(one.manifest.size_bytes for one in engines if one.path.stat().st_dev != disk)
    if needed:
        artifact.require_space(place, needed)
