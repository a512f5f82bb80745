"""Whether every file of an engine is there and is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from builder import artifact
from builder.ahead import WORKERS
from builder.errors import ArtifactError
from builder.fit.engine import BuiltEngine
from builder.fit.mend import anew
from builder.fit.mismatch import Mismatch, Unknown
from builder.fit.place import Place
from builder.manifest import Manifest
from builder.progress import Progress, silent


def damage(
    built: BuiltEngine, place: Place, *, deep: bool, progress: Progress = silent
) -> Iterator[Mismatch | Unknown]:
    """Every missing or changed file; with `deep` its bytes are read, else its size is looked at.

    Of an engine without our manifest no more is known than which files there must be. `progress`
    counts bytes, file by file.
    """
    broken = partial(
        Mismatch,
        do="copy it from where the engine was built, or build it again",
        command=anew(built, place),
    )
    for name in built.missing:
        engine = f"{built.world_size} ranks, a file each"
        yield broken(what=name, engine=engine, found="none, or an empty one")
    manifest = built.manifest
    if manifest is None:
        yield Unknown(what="files", why="trtllm-build leaves no digests to check")
        return
    parts = [
        replace(manifest, files={name: entry})
        for name, entry in manifest.files.items()
        if name not in built.missing
    ]

    def changed(part: Manifest) -> str | None:
        try:
            (artifact.verify if deep else artifact.require_files)(built.path, part)
        except ArtifactError as error:
            return error.found
        return None

    done, total = 0, sum(part.size_bytes for part in parts)
    with ThreadPoolExecutor(WORKERS) as pool:
        for part, found in zip(parts, pool.map(changed, parts), strict=True):
            [(name, entry)] = part.files.items()
            progress(done := done + entry.size_bytes, total)
            if found:
                yield broken(what=name, engine="as it was built", found=found)
