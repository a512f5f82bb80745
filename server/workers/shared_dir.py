"""The folder that the workers of one endpoint share: locked for as long as any of them lives.

By the lock systemd-tmpfiles, which empties /tmp of what is old, leaves it alone; and by its lack
the next endpoint knows what a killed one has left, and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "trtbuild-workers-"


@contextlib.contextmanager
def shared_dir() -> Iterator[tuple[Path, int]]:
    """A new folder, and the file that holds its lock, which workers inherit."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_left(left)
    path, lock = _made()
    try:
        yield path, lock
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _made() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with contextlib.suppress(FileNotFoundError):  # another took it for one that is left
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def _remove_left(path: Path) -> None:
    """Remove the folder if it is this user's, and nobody locks it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile, or another user's
        return
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # its endpoint lives, or there are no locks
        pass
    finally:
        os.close(lock)
