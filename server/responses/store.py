"""Where responses are kept between turns: a thread of its own for the file, for all requests."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from server.config import ServerConfig
from server.errors import NotReadyError, UnusableStoreError
from server.responses.database import Database, Kept

__all__ = ["Kept", "Store", "store_for"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SHARED_NAME: Final = "responses"
_MOST_WAITING_BYTES: Final = 128 * 1024 * 1024
"""Of answers that are to be written."""
_PUT_SECONDS: Final = 5.0
"""How long an answer may wait for being kept; then it leaves all the same."""


def store_for(config: ServerConfig) -> Store | None:
    """The store of all workers, which lives as long as they where no folder is named; None where
    several would have one each.

    Raises UnusableStoreError for a folder that can't be written.
    """
    folder = config.responses_dir
    if folder is None and config.shared_dir is not None:
        folder = config.shared_dir / _SHARED_NAME
    if folder is None and config.workers > 1:
        return None
    if folder is not None:
        _check(folder)
    return Store(
        Database(
            folder,
            max_bytes=config.responses_max_bytes,
            max_age_seconds=config.responses_max_age_seconds,
        )
    )


class Store:
    """Responses by owner and id. What one owner keeps, no other sees."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting_bytes = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="responses")

    async def put(self, made: Callable[[], Kept], size_bytes: int) -> None:
        """Keep what is `made`, in the store's thread, of about that size. A fault is logged: the
        answer was given, and is not taken back."""
        if self._waiting_bytes + size_bytes > _MOST_WAITING_BYTES:
            _log.error("a response is not kept: the file is too slow for those before it")
            return
        self._waiting_bytes += size_bytes
        writing = asyncio.ensure_future(self._run(lambda: self._database.put(made())))
        writing.add_done_callback(lambda done: self._written(done, size_bytes))
        await asyncio.wait({writing}, timeout=_PUT_SECONDS)

    def _written(self, writing: asyncio.Future[None], size_bytes: int) -> None:
        self._waiting_bytes -= size_bytes
        if not writing.cancelled() and (error := writing.exception()) is not None:
            _log.error("a response could not be kept", exc_info=error)

    async def read(self, owner: str, response_id: str, of: Callable[[Kept], T]) -> T | None:
        """What `of` makes, in the store's thread, of the owner's response of that id; None where
        there is none. Raises NotReadyError when the file can't be read, and as `of` does."""

        def read() -> T | None:
            kept = self._database.get(owner, response_id)
            return None if kept is None else of(kept)

        return await self._asked(read)

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget it; whether there was one. Raises as `read` does."""
        return await self._asked(lambda: self._database.delete(owner, response_id))

    async def close(self) -> None:
        """Let the file go, when all is written."""
        await self._run(self._database.close)
        self._thread.shutdown(wait=False)

    async def _asked(self, work: Callable[[], T]) -> T:
        try:
            return await self._run(work)
        except (sqlite3.Error, OSError) as error:
            _log.exception("the store of responses failed")
            raise NotReadyError("kept responses can't be read now", do="try again") from error

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _check(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise UnusableStoreError(
            f"responses can't be kept in {folder}", found=str(error), do="name another folder"
        ) from error
