"""Where the workers of one endpoint hang out their numbers, so that any of them can tell all.

Each worker replaces a file of its own in a shared folder, once a second, when it is asked and at
its end, and holds a lock for as long as it lives. What a dead worker has counted stays counted;
what it measured of itself (gauges) is gone with it. Its file is folded into one for all the dead
when the next worker starts, so that the folder doesn't grow.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from server.telemetry.tally import Tally

_log = logging.getLogger(__name__)

_FOLDER_LOCK, _DEAD = "folder.lock", "dead.json"


class Board:
    """One worker's place in the folder, and its view of the others'. Raises OSError from start."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._id = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._last = b""
        self._failing = False
        self._posting = threading.Lock()
        with self._folder_lock(fcntl.LOCK_EX):
            self._alive = _locked(folder / f"{self._id}.lock")
            try:
                self._fold()
            except BaseException:
                self.close()
                raise

    def post(self, tally: Tally) -> None:
        """Show `tally` to the others, from any thread. A full disk loses what is new, no more."""
        content = json.dumps(tally.to_json()).encode()
        with self._posting:
            if content == self._last:
                return
            try:
                _replace(self._folder / f"{self._id}.json", content)
            except OSError as error:
                if not self._failing:
                    _log.warning("metrics can't be shared with the other workers: %s", error)
                self._failing = True
            else:
                self._last, self._failing = content, False

    def others(self) -> tuple[Tally, int]:
        """The other workers' numbers together, and how many of them live."""
        total, living = Tally(), 0
        with self._folder_lock(fcntl.LOCK_SH):
            dead, folded = self._read_dead()
            total.merge(dead, gauges=False)
            for worker in self._workers():
                if worker != self._id and worker not in folded:
                    alive = self._lives(worker)
                    living += alive
                    total.merge(self._read(worker), gauges=alive)
        return total, living

    def close(self) -> None:
        """Leave; what was posted stays."""
        os.close(self._alive)

    def _fold(self) -> None:
        """The dead workers' files into one. Those in it already were left by a killed fold."""
        total, folded = self._read_dead()
        gone = [worker for worker in self._workers() if not self._lives(worker)]
        for worker in gone:
            if worker not in folded:
                total.merge(self._read(worker), gauges=False)
        if not gone:
            return
        content = {"folded": gone, "tally": total.to_json()}
        _replace(self._folder / _DEAD, json.dumps(content).encode())
        for worker in gone:
            for file in self._folder.glob(f"{worker}.*"):
                file.unlink(missing_ok=True)

    def _read_dead(self) -> tuple[Tally, set[str]]:
        content = _json(self._folder / _DEAD)
        with suppress(KeyError, TypeError, ValueError):
            return Tally.from_json(content["tally"]), set(content["folded"])
        return Tally(), set()

    def _workers(self) -> list[str]:
        """All that have begun and not been folded."""
        locks = sorted(self._folder.glob("*.lock"))
        return [path.stem for path in locks if path.name != _FOLDER_LOCK]

    def _read(self, worker: str) -> Tally:
        """A worker's numbers; none where it has shown none, or not this version's."""
        try:
            return Tally.from_json(_json(self._folder / f"{worker}.json"))
        except (KeyError, TypeError, ValueError):
            return Tally()

    def _lives(self, worker: str) -> bool:
        if worker == self._id:
            return True
        try:
            lock = os.open(self._folder / f"{worker}.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    @contextmanager
    def _folder_lock(self, kind: int) -> Iterator[None]:
        lock = os.open(self._folder / _FOLDER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, kind)
            yield
        finally:
            os.close(lock)


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
