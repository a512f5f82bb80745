"""`trtbuild.json`, the manifest in every artifact: what made it, from what, and its files.

It is what makes a finished stage recognisable: same kind, versions, source and options mean
the same bytes, so the stage is skipped.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from builder.digest import algorithm
from builder.errors import ArtifactError

NAME = "trtbuild.json"
FORMAT = 2
"""Format 1 is read too: its files have their digest as `sha256`."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an artifact: its size and the digest of its bytes, `algorithm:hex`."""

    size_bytes: int
    digest: str

    @property
    def algorithm(self) -> str:
        """What the digest was taken with: a name of `builder.digest`."""
        return algorithm(self.digest)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artifact is.

    `kind` is "checkpoint", "engine" or "repository"; `made_by` maps tools to versions; `source`
    identifies the input; `options` is every setting that changed the bytes; `about` holds facts
    worth showing (they follow from the rest and don't take part in recognition).
    """

    kind: str
    made_by: dict[str, str]
    source: dict[str, Any]
    options: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Equal keys mean equal bytes."""
        parts = [FORMAT, self.kind, self.made_by, self.source, self.options]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(entry.size_bytes for entry in self.files.values())

    def write(self, folder: Path) -> None:
        """Write it to `folder`."""
        (folder / NAME).write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")


def own_version() -> str:
    """trtbuild's, as `made_by` has it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trtbuild")
    except PackageNotFoundError:
        return "unknown"


def read(folder: Path, kind: str | None = None) -> Manifest:
    """The manifest of the artifact in `folder`.

    Raises ArtifactError when there is none, when it can't be read, or when it isn't of `kind`.
    """
    path = folder / NAME
    try:
        fields = json.loads(path.read_text())
        if fields.pop("format") not in (1, FORMAT):
            raise ValueError("another format version")
        files = {name: _entry(name, entry) for name, entry in fields.pop("files").items()}
        manifest = Manifest(**fields, files=files)
        _require_types(manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{folder} is not a trtbuild artifact",
            found=f"no {NAME} in it" if folder.is_dir() else "no such folder",
            do="make it with trtbuild convert, build or repo",
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path} can't be read", found=error.strerror) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} can't be read", found=str(error), do="make the artifact again"
        ) from error
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(
            f"{folder} is not a {kind}",
            found=f"a {manifest.kind}",
            do=f"give the {kind}'s folder",
        )
    return manifest


def _require_types(manifest: Manifest) -> None:
    for name in ("made_by", "source", "options", "about"):
        if not isinstance(getattr(manifest, name), dict):
            raise ValueError(f"{name} is not an object")


def _entry(name: str, fields: dict[str, Any]) -> FileEntry:
    size_bytes = fields["size_bytes"]
    digest = f"sha256:{fields['sha256']}" if "sha256" in fields else fields["digest"]
    if type(size_bytes) is not int or not isinstance(digest, str):
        raise ValueError(f"no size_bytes and digest for {name}")
    algorithm(digest)
    return FileEntry(size_bytes=size_bytes, digest=digest)


def identity(source: Path) -> dict[str, Any]:
    """What tells one input from another without reading its weights.

    An artifact is known by its manifest (which holds the digest of every file); a model folder
    or file, as make does it, by the sizes and modification times of its files; the configs of an
    encoder's modules, and further chat templates, are in folders below it.
    """
    manifest = source / NAME
    if manifest.is_file():
        return {"manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest()}
    if source.is_dir():
        below = ("*/config.json", "additional_chat_templates/*.jinja")
        paths = [*source.iterdir(), *(path for each in below for path in source.glob(each))]
        files = {p.relative_to(source).as_posix(): p for p in sorted(paths) if p.is_file()}
    else:
        files = {source.name: source}
    return {"files": {n: [p.stat().st_size, p.stat().st_mtime_ns] for n, p in files.items()}}
