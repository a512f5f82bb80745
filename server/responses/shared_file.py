"""The SQLite file that several processes share, and the next one when it can't be read any more.

A file in use is never renamed nor written anew: SQLite finds its companions by name. Files are
numbered, the newest counts, and who has an older one open moves on.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"responses\.(\d{1,9})\.sqlite3")
_BUSY_SECONDS: Final = 10.0
_WAL_BYTES: Final = 4 * 1024 * 1024
_KEPT_UNREADABLE: Final = 1
"""Files that couldn't be read are left for whoever wants to look into them: so many."""


class SharedFile:
    """The newest file of `folder` (None: memory). `schema` makes it, and its `version` tells it
    from others' files. Belongs to one thread. Raises sqlite3.Error, OSError."""

    def __init__(self, folder: Path | None, *, schema: str, version: int) -> None:
        self._folder, self._schema, self._version = folder, schema, version
        self._number = 0
        self._connection: sqlite3.Connection | None = None

    def connection(self) -> sqlite3.Connection:
        """The connection; a new one when another process has moved on."""
        if self._connection is not None and self._folder and self._is_left(self._folder):
            self.close()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def move_on(self, error: sqlite3.Error) -> None:
        """Begin a new file in the place of the one that can't be read, unless somebody has."""
        folder = self._folder
        if folder is None:
            raise error
        self.close()
        with _locked(folder):
            if self._number < _newest(folder):
                return
            told = "%s can't be read (%s): it is left, and a new one begins"
            _log.warning(told, _path(folder, self._number), error)
            _touch(_path(folder, self._number + 1))
            for number in range(self._number - _KEPT_UNREADABLE, 0, -1):
                if not _remove(_path(folder, number)):
                    return

    def close(self) -> None:
        """Let the file go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_left(self, folder: Path) -> bool:
        number = self._number
        return _path(folder, number + 1).exists() or not _path(folder, number).exists()

    def _connect(self) -> sqlite3.Connection:
        if self._folder is None:
            return self._prepared(":memory:")
        with _locked(self._folder):
            self._number = _newest(self._folder) or 1
            path = _path(self._folder, self._number)
            _touch(path)
            return self._prepared(str(path))

    def _prepared(self, target: str) -> sqlite3.Connection:
        connection = sqlite3.connect(target, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = FAST")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, self._version):
                raise sqlite3.DatabaseError(f"a file of version {version}, not {self._version}")
            if version == 0:
                connection.executescript(self._schema)
                connection.execute(f"PRAGMA user_version = {self._version}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _path(folder: Path, number: int) -> Path:
    return folder / f"responses.{number}.sqlite3"


def _newest(folder: Path) -> int:
    named = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in named if match), default=0)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _remove(path: Path) -> bool:
    """Whether there was one to remove."""
    was_there = path.exists()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return was_there


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among all processes that open a file of the folder or move on to another."""
    with (folder / "responses.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
