"""TensorRT's timing cache, kept between builds: kernels timed once need not be timed again.

A cache is good only for the TensorRT and the GPU that filled it, so its name holds both. Builds
work on copies, and what one has learnt takes the cache's place whole: two at once don't harm each
other, of the last to finish the knowledge stays.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builder.gpus import Gpu


@dataclass(frozen=True, kw_only=True)
class TimingCache:
    """Where the cache is kept (None: nowhere), and where one build has its copies."""

    place: Path | None
    before: Path
    after: Path

    @staticmethod
    def lent(place: Path | None, folder: Path) -> TimingCache:
        """Copy the cache in `place`, if there is one, to `folder`, which is made."""
        folder.mkdir()
        cache = TimingCache(place=place, before=folder / "before", after=folder / "after")
        if place is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                shutil.copyfile(place, cache.before)
        return cache

    @property
    def input(self) -> Path | None:
        """What the compiler reads, None without one."""
        return self.before if self.before.exists() else None

    def keep(self, say: Callable[[str], None]) -> None:
        """Put what the compiler wrote in place; a cache that can't be kept is no failure."""
        if self.place is None or not self.after.is_file() or not self.after.stat().st_size:
            return
        part = self.place.with_name(f".{self.place.name}.{os.getpid()}.partial")
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.after, part)
            part.replace(self.place)
        except OSError as error:
            say(f"warning: the timing cache {self.place} can't be kept: {error.strerror}")
            with suppress(OSError):
                part.unlink(missing_ok=True)


def default_place(tensorrt: str | None, gpu: Gpu | None) -> Path | None:
    """In the user's cache folder, by TensorRT's version and the GPU; None when one isn't known."""
    if tensorrt is None or gpu is None:
        return None
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    model = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    return Path(root) / "trtbuild" / "timing" / f"tensorrt-{tensorrt}-sm{gpu.sm}-{model}.cache"
