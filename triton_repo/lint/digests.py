"""Files of a repository that trtbuild wrote, held against their digests in the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builder import digest
from builder.ahead import WORKERS
from builder.manifest import FileEntry
from triton_repo.lint.finding import Finding, error
from triton_repo.lint.repository import Repository

_AGAIN = "write the repository again with trtbuild repo"


def changed(repository: Repository) -> Iterator[Finding]:
    """Every file that isn't as it was written."""
    if repository.manifest is None:
        return
    files = repository.manifest.files
    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(_difference, [repository.path / name for name in files], files.values())
        for name, difference in zip(files, found, strict=True):
            if difference:
                yield error(name, "", difference, _AGAIN)


def _difference(path: Path, entry: FileEntry) -> str | None:
    if not path.is_file():
        return "no file"
    if path.stat().st_size != entry.size_bytes:
        return "another size than it was written with"
    same = digest.of(path, entry.algorithm) == entry.digest
    return None if same else "another digest than it was written with"
