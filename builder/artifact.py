"""An artifact folder is whole or absent: written beside its place, then renamed into it."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from builder import digest
from builder import manifest as manifests
from builder.ahead import WORKERS
from builder.errors import ArtifactError, OutputError
from builder.manifest import FileEntry, Manifest

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    *_FULL,
    errno.EACCES,
    errno.EBUSY,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
    errno.EXDEV,
)


class Staging:
    """A folder being written. `path` is where its files go; digests already known spare a read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: dict[str, str] = {}

    def record(self, name: str, digest: str) -> None:
        """Note the digest of the file `name` (a path relative to the folder), taken on writing."""
        self._digests[name] = digest

    def entries(self) -> dict[str, FileEntry]:
        """Every file below the folder, with size and digest."""
        names = sorted(
            p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()
        )
        return {name: self._entry(name) for name in names}

    def _entry(self, name: str) -> FileEntry:
        path = self.path / name
        return FileEntry(
            size_bytes=path.stat().st_size, digest=self._digests.get(name) or digest.of(path)
        )


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


def require_files(folder: Path, manifest: Manifest) -> None:
    """Raise ArtifactError unless every file of an artifact is there with its size."""
    do = f"make the {manifest.kind} again"
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{folder} is not whole", found=f"no {name}", do=do)
        if path.stat().st_size != entry.size_bytes:
            raise ArtifactError(_changed(path), found="another size", do=do)


def verify(folder: Path, manifest: Manifest, known: Mapping[str, str] | None = None) -> None:
    """Read every file of an artifact back; raise ArtifactError for the first that has changed.

    `known` are digests of files that have been read already.
    """
    require_files(folder, manifest)
    found = dict(known or {})
    left = [name for name in manifest.files if name not in found]
    with ThreadPoolExecutor(WORKERS) as pool:
        read = pool.map(lambda name: digest.of(folder / name, manifest.files[name].algorithm), left)
        found.update(zip(left, read, strict=True))
    for name, entry in manifest.files.items():
        if found[name] != entry.digest:
            do = f"make the {manifest.kind} again"
            raise ArtifactError(_changed(folder / name), found="another digest", do=do)


def _changed(path: Path) -> str:
    return f"{path} has changed since it was written"


@contextmanager
def stage(out: Path, manifest: Manifest) -> Iterator[Staging]:
    """Write an artifact: yields the staging folder; on success it takes the place of `out`.

    An older artifact of the same kind in `out` is replaced; anything else there is never touched.
    A step that fails or is killed leaves `out` as it was; what a killed one left beside it is
    removed by the next. Of two runs at once the last to finish stays. Raises OutputError for a
    full disk, a read-only place or a folder that isn't to be replaced.
    """
    with writing(out):
        out = out.resolve()
        refuse_foreign(out, manifest.kind)
        path = out.parent / f".{out.name}.{os.getpid()}.partial"
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
    """Turn the operating system's refusals to write at `out` or beside it into OutputError.

    What it refuses elsewhere, such as reading the input, is raised as it is; a full disk is always
    the output's.
    """
    try:
        yield
    except OSError as error:
        ours = error.errno in _FULL or _concerns(error.filename, out)
        if error.errno not in _REFUSED or not ours:
            raise
        do = "choose another place with -o"
        if error.errno in _FULL:
            do = f"free some space or {do}"
        raise OutputError(f"can't write {out}", found=os.strerror(error.errno), do=do) from error


def _concerns(filename: str | None, out: Path) -> bool:
    """Whether an error with this file is about `out`; one of an open file has no name."""
    if filename is None:
        return True
    path, out = Path(filename).absolute(), out.absolute()
    staged = any(part.startswith(f".{out.name}.") for part in path.parts)
    return staged or path.is_relative_to(out) or out.is_relative_to(path)


def require_space(place: Path, needed_bytes: int) -> None:
    """Refuse to begin what can't end: raises OutputError when the disk at `place` is too full."""
    while not place.exists():
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise OutputError(
            f"not enough space at {place}",
            found=f"{free_bytes / 1e6:,.1f} MB free where {needed_bytes / 1e6:,.1f} MB are needed",
            do="free some space or choose another place with -o",
        )


def refuse_foreign(out: Path, kind: str) -> None:
    """Refuse to replace what isn't an older artifact of this kind, or what can't be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is in the way", found="a file", do="choose another -o")
    if Path.cwd().is_relative_to(out) or out.is_mount():
        found = "a mount point" if out.is_mount() else "the current folder or one around it"
        raise OutputError(
            f"{out} can't be replaced by a new folder", found=found, do="choose a folder inside it"
        )
    do = "remove it or choose another place with -o"
    if any(out.iterdir()) and not (out / manifests.NAME).is_file():
        found = f"no {manifests.NAME} in it"
        raise OutputError(f"{out} exists and trtbuild didn't make it", found=found, do=do)
    with suppress(ArtifactError):
        older = manifests.read(out)
        if older.kind != kind:
            found = f"a {older.kind}"
            raise OutputError(f"{out} is not a {kind} to be replaced", found=found, do=do)
        if strange := _strange_file(out, older):
            do = "move it away or choose another place with -o"
            raise OutputError(f"{out} has a file that trtbuild didn't make", found=strange, do=do)


def _strange_file(out: Path, manifest: Manifest) -> str | None:
    """A file that the artifact's manifest doesn't know. Python's caches appear as it is served."""
    known = {manifests.NAME, *manifest.files}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_dir() and name not in known and path.parent.name != "__pycache__":
            return name
    return None


def _remove_dead(out: Path) -> None:
    """Remove what killed runs left beside `out`."""
    for leftover in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
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
    while staged.exists():
        with suppress(FileNotFoundError):
            out.rename(old)
        try:
            staged.rename(out)
        except OSError as error:
            # another run has put its own there in between
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        shutil.rmtree(old, ignore_errors=True)
