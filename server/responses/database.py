"""Kept responses as rows of a file that all workers share."""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from server.responses.shared_file import SharedFile

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 60.0
_SWEPT_SHARE: Final = 16
"""When there is no more room, the oldest of so many parts of the rows goes."""

_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE responses (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    created REAL NOT NULL,
    response BLOB NOT NULL,
    items BLOB NOT NULL
);
CREATE INDEX by_age ON responses (created);
"""
_INSERT: Final = """
INSERT OR REPLACE INTO responses (id, owner, created, response, items) VALUES (?, ?, ?, ?, ?)
"""
_SELECT: Final = "SELECT response, items FROM responses WHERE id = ? AND owner = ? AND created > ?"
_DELETE: Final = "DELETE FROM responses WHERE id = ? AND owner = ?"
_DELETE_OLDER: Final = "DELETE FROM responses WHERE created <= ?"
_DELETE_FIRST: Final = """
DELETE FROM responses WHERE number IN (SELECT number FROM responses ORDER BY number LIMIT ?)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A response and what it answered: JSON, the items of the whole conversation before it as
    server.responses.item_json writes them."""

    id: str
    owner: str
    response: bytes
    items: bytes


class Database:
    """The rows in `folder` (None: in memory). Belongs to one thread.

    The oldest go when all take more than `max_bytes`, or are older than `max_age_seconds`. What
    can't be read as a file of ours is left, and a new one begun. All methods raise sqlite3.Error
    and OSError.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        max_bytes: int,
        max_age_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = SharedFile(folder, schema=_SCHEMA, version=_VERSION)
        self._max_bytes, self._max_age_seconds, self._clock = max_bytes, max_age_seconds, clock
        self._swept = 0.0

    def put(self, kept: Kept) -> None:
        """Keep one more."""
        row = (kept.id, kept.owner, self._clock(), _packed(kept.response), _packed(kept.items))

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute(_INSERT, row)
                self._sweep(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

        self._with(insert)

    def get(self, owner: str, response_id: str) -> Kept | None:
        """The owner's response of that id."""
        wanted = (response_id, owner, self._clock() - self._max_age_seconds)
        row = self._with(lambda connection: connection.execute(_SELECT, wanted).fetchone())
        if row is None:
            return None
        try:
            response, items = map(zlib.decompress, row)
        except zlib.error:
            _log.warning("a kept response is damaged, and is dropped: %s", response_id)
            self.delete(owner, response_id)
            return None
        return Kept(id=response_id, owner=owner, response=response, items=items)

    def delete(self, owner: str, response_id: str) -> bool:
        """Forget it; whether there was one."""
        wanted = (response_id, owner)
        return self._with(lambda connection: connection.execute(_DELETE, wanted).rowcount > 0)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def _with(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._file.connection())
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # its kinds are no fault of the file
                raise
            self._file.move_on(error)
            return work(self._file.connection())

    def _sweep(self, connection: sqlite3.Connection) -> None:
        now = self._clock()
        if now - self._swept > _SWEEP_SECONDS:
            self._swept = now
            connection.execute(_DELETE_OLDER, (now - self._max_age_seconds,))
        while _used_bytes(connection) > self._max_bytes:
            (count,) = connection.execute("SELECT count(*) FROM responses").fetchone()
            if count <= 1:
                return
            connection.execute(_DELETE_FIRST, (max(count // _SWEPT_SHARE, 1),))


def _packed(content: bytes) -> bytes:
    return zlib.compress(content, 1)


def _used_bytes(connection: sqlite3.Connection) -> int:
    names = ("page_size", "page_count", "freelist_count")
    size, pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int(size) * (int(pages) - int(free))
