"""An artifact folder is whole or absent: written beside its place, then renamed into it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from builder import manifest as manifests
from builder.errors import ArtifactError, OutputError
from builder.manifest import FileEntry, Manifest

_CHUNK_BYTES = 1 << 20


class Staging:
    """A folder being written. `path` is where its files go; digests already known spare a read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sha256: dict[str, str] = {}

    def record(self, name: str, sha256: str) -> None:
        """Note the digest of the file `name` (a path relative to the folder), taken on writing."""
        self._sha256[name] = sha256

    def entries(self) -> dict[str, FileEntry]:
        """Every file below the folder, with size and digest."""
        names = sorted(
            p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()
        )
        return {name: self._entry(name) for name in names}

    def _entry(self, name: str) -> FileEntry:
        path = self.path / name
        return FileEntry(
            size_bytes=path.stat().st_size, sha256=self._sha256.get(name) or sha256_of(path)
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def finished(out: Path, wanted: Manifest) -> Manifest | None:
    """The manifest of the artifact in `out` if it is what `wanted` would make, else None.

    Every file must be there with its size; contents are `trtbuild check`'s to read.
    """
    try:
        found = manifests.read(out)
    except ArtifactError:
        return None
    whole = all(
        (out / name).is_file() and (out / name).stat().st_size == entry.size_bytes
        for name, entry in found.files.items()
    )
    return found if whole and found.key == wanted.key else None


def verify(folder: Path, manifest: Manifest) -> None:
    """Read every file of an artifact back; raise ArtifactError for the first that has changed."""
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(
                f"{folder} is not whole", found=f"no {name}", do=f"make the {manifest.kind} again"
            )
        if path.stat().st_size != entry.size_bytes or sha256_of(path) != entry.sha256:
            raise ArtifactError(
                f"{path} has changed since it was written",
                found="another size or digest",
                do=f"make the {manifest.kind} again",
            )


@contextmanager
def stage(out: Path, manifest: Manifest) -> Iterator[Staging]:
    """Write an artifact: yields the staging folder; on success it takes the place of `out`.

    An older artifact in `out` is replaced; a folder that isn't ours is never touched. A step
    that fails or is killed leaves `out` as it was; what a killed one left beside it is removed
    by the next. Raises OutputError for a full disk, a read-only place or a foreign folder.
    """
    out = out.resolve()
    _refuse_foreign(out)
    path = out.parent / f".{out.name}.{os.getpid()}.partial"
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(out)
        path.mkdir()
    try:
        with writing(out):
            staging = Staging(path)
            yield staging
            replace(manifest, files=staging.entries()).write(path)
            _sync(path)
            _swap(path, out)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        do = "choose another place with -o"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            do = f"free some space or {do}"
        raise OutputError(f"can't write {out}", found=os.strerror(error.errno), do=do) from error


def require_space(place: Path, needed_bytes: int) -> None:
    """Refuse to begin what can't end: raises OutputError when the disk at `place` is too full."""
    while not place.exists():
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise OutputError(
            f"not enough space at {place}",
            found=f"{free_bytes / 1e9:.2f} GB free where {needed_bytes / 1e9:.2f} GB are needed",
            do="free some space or choose another place with -o",
        )


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / manifests.NAME).is_file():
        raise OutputError(
            f"{out} exists and trtbuild didn't make it",
            found=f"no {manifests.NAME} in it",
            do="remove it or choose another place with -o",
        )
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is in the way", found="a file", do="choose another -o")


def _remove_dead(out: Path) -> None:
    """Remove what killed runs left beside `out`."""
    for leftover in out.parent.glob(f".{out.name}.*.partial"):
        pid = leftover.name.rsplit(".", 2)[1]
        if not (pid.isdigit() and Path(f"/proc/{pid}").exists()) or int(pid) == os.getpid():
            shutil.rmtree(leftover, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the bytes on the disk before the rename says that they are."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _swap(staged: Path, out: Path) -> None:
    old = staged.with_suffix(".old.partial")
    if out.exists():
        out.rename(old)
    staged.rename(out)
    shutil.rmtree(old, ignore_errors=True)
