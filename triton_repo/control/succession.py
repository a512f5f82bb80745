"""The files of an engine's new version: written beside the old ones' and taken over by renames.

At every moment the repository loads: a version is there before a config names it, and goes after
none does. What lies below a model and isn't a number, Triton doesn't see.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from builder import manifest as manifests
from builder.artifact import writing
from builder.errors import LaunchError
from builder.manifest import Manifest
from builder.progress import Progress
from triton_repo.layout import Part, write_parts
from triton_repo.parts import DRAFT
from triton_repo.planned import CONFIG
from triton_repo.served import KIND, ServedEngine, ServedRepository
from triton_repo.settings.options import RepositoryOptions
from triton_repo.settings.rules import ADAPTERS

_FOLDER = ".next"
_OLD, _MANIFEST = ".old", ".manifest"


@dataclass(frozen=True, kw_only=True)
class Succession:
    """A new version of `engine`'s models: staged in `folder`, to be `version` in the repository."""

    repository: Path
    engine: ServedEngine
    version: int
    folder: Path

    @property
    def models(self) -> tuple[str, ...]:
        """The models that get a new version, the engine's first, so that it fails before others."""
        first = self.engine.model
        return (first, *(name for name in self.engine.models.values() if name != first))

    def prepare(self) -> None:
        """Write all that will be needed, also for the way back: from then on there are renames."""
        old = manifests.read(self.repository, KIND)
        new = manifests.read(self.folder, KIND)
        _merged(old, new, self.engine.name, self.models).write(self._made(_MANIFEST))
        for model in self.models:
            shutil.copyfile(self.repository / model / CONFIG, self._made(_OLD) / model)

    def install(self) -> None:
        """Put versions and configs in their places."""
        for model in self.models:
            name = f"{model}/{self.version}"
            (self.folder / name).rename(self.repository / name)
        for model in self.models:
            (self.folder / model / CONFIG).rename(self.repository / model / CONFIG)

    def withdraw(self) -> None:
        """Put the old configs back, and the new versions out of Triton's sight."""
        for model in self.models:
            (self.folder / _OLD / model).rename(self.repository / model / CONFIG)
        for model in self.models:
            new = self.repository / model / str(self.version)
            if new.exists():
                new.rename(self.folder / model / str(self.version))

    def confirm(self) -> None:
        """Have the manifest say what is served now."""
        (self.folder / _MANIFEST / manifests.NAME).rename(self.repository / manifests.NAME)

    def clear(self, *, keep: Collection[int | None] = ()) -> None:
        """Remove every version but the new one and those to `keep`."""
        for model in self.models:
            for number, path in _versions(self.repository / model):
                if number != self.version and number not in keep:
                    shutil.rmtree(path)

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder


@contextmanager
def succession(
    served: ServedRepository, engine: ServedEngine, new: Path, *, progress: Progress
) -> Iterator[Succession]:
    """A new version of `engine` from the engine folder `new`, staged; what is left of it goes.

    One at a time. Raises as `write_parts` does, LaunchError where another is under way.
    """
    below = served.path / engine.model
    folder = below / _FOLDER
    with _alone(served.path), writing(served.path):
        for left in below.glob(f".{_FOLDER}*"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        models = [served.path / model for model in engine.models.values()]
        version = 1 + max(number for model in models for number, _ in _versions(model))
        manifest = manifests.read(served.path, KIND)
        try:
            parts = [_part(each, manifest, engine, new) for each in served.engines]
            write_parts(parts, folder, version=version, progress=progress)
            made = Succession(repository=served.path, engine=engine, version=version, folder=folder)
            made.prepare()
            yield made
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(repository: Path) -> Iterator[None]:
    descriptor = os.open(repository, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise LaunchError(f"{repository} is being changed by another", do="wait for it") from error
    finally:
        os.close(descriptor)


def _versions(model: Path) -> list[tuple[int, Path]]:
    return [(int(path.name), path) for path in model.iterdir() if path.name.isdigit()]


def _part(engine: ServedEngine, manifest: Manifest, old: ServedEngine, new: Path) -> Part:
    """An engine as the repository was asked for it; `new` takes the place of `old`."""
    draft = engine.models.get("draft")
    folder = engine.engine_dir / ADAPTERS
    # an engine of the LLM API has its adapters in itself
    adapters = engine.adapters if folder.is_dir() else {}
    return Part(
        engine=new if engine is old else engine.engine_dir,
        name=engine.name,
        options=_options(_entry(manifest.options, engine.name), engine),
        adapters={name: folder / str(number) for name, number in _in_order(adapters)},
        draft=engine.engine_dir.parents[1] / draft / engine.engine_dir.name if draft else None,
        draft_options=_options(_entry(manifest.options, f"{engine.name}{DRAFT}"), engine)
        if draft
        else RepositoryOptions(),
    )


def _in_order(adapters: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(adapters.items(), key=lambda pair: pair[1])


def _options(settings: Mapping[str, Any], engine: ServedEngine) -> RepositoryOptions:
    """The settings in a manifest, but for those that follow from the engine or its version."""
    known = {each.name: _tuples(settings.get(each.name)) for each in fields(RepositoryOptions)}
    given = {name: value for name, value in known.items() if name in settings}
    for name, value in given.items():
        below = isinstance(value, str) and value.startswith(f"{engine.model}/")
        if below or (name == "max_beam_width" and value == engine.max_beam_width):
            given[name] = None
    return RepositoryOptions(**given)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _entry(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in options["engines"] if each["name"] == name)
    return found


def _merged(old: Manifest, new: Manifest, name: str, models: tuple[str, ...]) -> Manifest:
    """`old`, with what `new` says of the engine `name` and of its models' files."""
    ours = tuple(f"{model}/" for model in models)
    files = {path: entry for path, entry in old.files.items() if not path.startswith(ours)}
    files |= {path: entry for path, entry in new.files.items() if path.startswith(ours)}

    def places(manifest: Manifest) -> int:
        return [each["name"] for each in manifest.options["engines"]].index(name)

    here, there = places(old), places(new)

    def taken(mine: list[Any], theirs: list[Any]) -> list[Any]:
        return [*mine[:here], theirs[there], *mine[here + 1 :]]

    engines = [_entry(new.about, name) if e["name"] == name else e for e in old.about["engines"]]
    return replace(
        old,
        made_by=new.made_by,
        source={**old.source, "engines": taken(old.source["engines"], new.source["engines"])},
        options={**old.options, "engines": taken(old.options["engines"], new.options["engines"])},
        about={**old.about, "engines": engines},
        files=dict(sorted(files.items())),
    )
