from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config import ServerConfig
from server.errors import NotReadyError, UnusableStoreError
from server.responses import item_json
from server.responses.database import Database, Kept
from server.responses.store import Store, store_for

MIB = 1024 * 1024
FILE = "responses.1.sqlite3"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def opened() -> Iterator[list[Database]]:
    databases: list[Database] = []
    yield databases
    for database in databases:
        database.close()


def database(
    folder: Path | None, opened: list[Database], *, max_bytes: int = MIB, clock: Clock | None = None
) -> Database:
    made = Database(folder, max_bytes=max_bytes, max_age_seconds=100, clock=clock or Clock())
    opened.append(made)
    return made


def kept(response_id: str, owner: str = "me", *, size: int = 8) -> Kept:
    response = os.urandom(size)
    return Kept(id=response_id, owner=owner, response=response, items=b"[]")


def test_what_one_worker_keeps_another_finds_and_so_does_the_next_run(
    tmp_path: Path, opened: list[Database]
) -> None:
    first, second = database(tmp_path, opened), database(tmp_path, opened)
    response = kept("resp_1")
    first.put(response)
    assert second.get("me", "resp_1") == response
    first.close()
    second.close()
    assert database(tmp_path, opened).get("me", "resp_1") == response
    assert second.delete("me", "resp_1")
    assert first.get("me", "resp_1") is None
    assert not first.delete("me", "resp_1")


def test_nobody_reads_or_deletes_what_another_owns(opened: list[Database]) -> None:
    memory = database(None, opened)
    memory.put(kept("resp_1", "me"))
    assert memory.get("you", "resp_1") is None
    assert not memory.delete("you", "resp_1")
    assert memory.get("me", "resp_1") is not None


def test_the_oldest_go_when_all_is_larger_than_it_may_be(
    tmp_path: Path, opened: list[Database]
) -> None:
    bounded = database(tmp_path, opened, max_bytes=MIB)
    for number in range(100):
        bounded.put(kept(f"resp_{number}", size=32 * 1024))
    held = [number for number in range(100) if bounded.get("me", f"resp_{number}")]
    assert held == list(range(held[0], 100)), "none but the oldest"
    assert 16 <= len(held) <= 32
    assert (tmp_path / FILE).stat().st_size < 2 * MIB


def test_what_is_too_old_is_neither_told_nor_held(tmp_path: Path, opened: list[Database]) -> None:
    clock = Clock()
    aging = database(tmp_path, opened, clock=clock)
    aging.put(kept("resp_1"))
    clock.now += 101
    assert aging.get("me", "resp_1") is None
    aging.put(kept("resp_2"))
    with sqlite3.connect(tmp_path / FILE) as other:
        assert other.execute("SELECT id FROM responses").fetchall() == [("resp_2",)]
    other.close()


def test_a_killed_worker_leaves_what_it_has_kept(tmp_path: Path, opened: list[Database]) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from server.responses.database import Database, Kept\n"
        "d = Database(Path(sys.argv[1]), max_bytes=1 << 30, max_age_seconds=1e9)\n"
        "for n in range(10**9):\n"
        "    d.put(Kept(id=f'resp_{n}', owner='', response=b'{}', items=b'[]'))\n"
        "    print(n, flush=True)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    with worker.stdout as lines:
        for line in lines:
            if int(line) >= 20:
                break
        worker.send_signal(signal.SIGKILL)
        worker.wait(30)
        last = int(line)
    survivor = Database(tmp_path, max_bytes=MIB, max_age_seconds=1e9, clock=time.time)
    opened.append(survivor)
    assert all(survivor.get("", f"resp_{number}") for number in range(last + 1))
    survivor.put(kept("resp_new"))


@pytest.mark.parametrize("closed", [True, False])
def test_all_workers_leave_a_file_that_cant_be_read_for_one_new_one(
    tmp_path: Path, opened: list[Database], caplog: pytest.LogCaptureFixture, closed: bool
) -> None:
    first, second = database(tmp_path, opened), database(tmp_path, opened)
    for number in range(50):
        first.put(kept(f"resp_{number}", size=8000))
    assert second.get("me", "resp_1")
    if closed:
        first.close()
        second.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    (tmp_path / FILE).write_bytes(b"no database at all\n" * 10_000)
    with caplog.at_level(logging.WARNING):
        for each in (first, second):
            assert each.get("me", "resp_49") is None
        first.put(kept("resp_new"))
        assert second.get("me", "resp_new")
        assert second.delete("me", "resp_new")
    assert first.get("me", "resp_new") is None
    assert len(caplog.records) == 1
    assert FILE in caplog.text
    assert len(list(tmp_path.glob("*.sqlite3"))) == 2


def test_a_file_of_another_version_is_left_as_it_is(tmp_path: Path, opened: list[Database]) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    database(tmp_path, opened).put(kept("resp_1"))
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    connection.close()


def test_files_are_their_users_alone(tmp_path: Path, opened: list[Database]) -> None:
    config = ServerConfig(triton_addresses=("x:1",), models=(), responses_dir=tmp_path / "a" / "b")
    assert store_for(config) is not None
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    database(tmp_path, opened).put(kept("resp_1"))
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob(f"{FILE}*")} == {0}


def test_a_folder_that_cant_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = ServerConfig(
        triton_addresses=("x:1",), models=(), responses_dir=tmp_path / "file" / "folder"
    )
    with pytest.raises(UnusableStoreError):
        store_for(config)


def test_several_workers_keep_nothing_without_a_folder_that_they_share(tmp_path: Path) -> None:
    config = ServerConfig(triton_addresses=("x:1",), models=(), workers=2)
    assert store_for(config) is None
    shared = ServerConfig(triton_addresses=("x:1",), models=(), workers=2, shared_dir=tmp_path)
    assert store_for(shared) is not None


class Broken(Database):
    """A disk that is full, or that takes until a test lets it go on."""

    def __init__(self, wait: threading.Event | None = None) -> None:
        super().__init__(None, max_bytes=MIB, max_age_seconds=100)
        self._wait = wait

    def put(self, kept: Kept) -> None:
        if self._wait is None:
            raise sqlite3.OperationalError("database or disk is full")
        assert self._wait.wait(60)
        super().put(kept)

    def get(self, owner: str, response_id: str) -> Kept | None:
        if self._wait is None:
            raise sqlite3.OperationalError("disk I/O error")
        return super().get(owner, response_id)


async def test_a_full_disk_costs_no_answer_but_is_said(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(Broken())
    await store.put(lambda: kept("resp_1"), 1)
    assert "disk is full" in caplog.text
    with pytest.raises(NotReadyError):
        await store.read("me", "resp_1", lambda read: read.id)
    await store.close()


async def test_a_slow_disk_holds_up_nobody_but_who_waits_for_it() -> None:
    disk, one = threading.Event(), kept("resp_1")
    store = Store(Broken(disk))
    writing = asyncio.create_task(store.put(lambda: one, 1))
    await asyncio.sleep(0.05)
    assert not writing.done(), "and yet this loop runs"
    disk.set()
    await writing
    found = await store.read("me", "resp_1", lambda read: (read, threading.current_thread()))
    assert found is not None
    assert found[0] == one
    assert found[1] is not threading.main_thread(), "to decode it may take long"
    await store.close()


def test_items_are_read_one_by_one_as_they_were_written() -> None:
    items = [{"id": "a", "text": ',\n"],[\u2028'}, {}, {"x": [{"y": None}, [], 1.5]}]
    content = item_json.written(items)
    assert json.loads(content) == item_json.read(content) == items
    sizes = [size_bytes for _, size_bytes in item_json.sized(content)]
    assert sizes == [len(line.rstrip(b",")) for line in content[1:-1].split(b"\n")]
    assert item_json.read(item_json.written([])) == []
