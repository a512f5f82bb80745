"""Promise: several processes are one endpoint: what one of them suffers the others don't."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from live_proxy import MODEL, config
from small_tokenizers import byte_level, write_folder
from waiting import eventually, until

from server.auth.key import ApiKey, digest
from server.config import ServerConfig
from server.errors import InternalError, UnusableSettingError
from server.workers import serve_workers
from server.workers.kept import KeptWorker
from server.workers.shared_dir import shared_dir
from server.workers.worker import Order

TOKENIZER = byte_level()
WORDS = "one two three four five six seven eight" * 3
"""103 tokens: a stream of 10 seconds, so that what a test does in its course isn't too late."""
BODY: dict[str, Any] = {"model": MODEL, "prompt": WORDS, "stream": True, "max_tokens": 150}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("workers"), TOKENIZER)


class Endpoint:
    """Workers that run, and a client that makes a connection for each request."""

    def __init__(
        self, http: httpx2.AsyncClient, stop: asyncio.Event, serving: asyncio.Task[None]
    ) -> None:
        self.http, self.stop, self.serving = http, stop, serving

    async def pid(self) -> int:
        """Of whichever worker answers."""
        answer = await self.http.get("/v1/models")
        return int(answer.json()["data"][0]["created"])

    async def pids(self, count: int) -> set[int]:
        """Of all workers, once `count` have answered."""
        found: set[int] = set()

        async def enough() -> bool:
            found.add(await self.pid())
            return len(found) == count

        await eventually(enough)
        return found

    async def has_load(self, count: int) -> bool:
        """Of all workers together, whichever is asked."""
        return (await self.http.get("/load")).json() == {"server_load": count}

    async def text(self) -> str:
        """A whole stream's text. Raises httpx2.TransportError where it breaks off."""
        answer = await self.http.post("/v1/completions", json=BODY)
        lines = [line[6:] for line in answer.text.split("\n\n") if line]
        assert lines[-1] == "[DONE]"
        chunks = [httpx2.Response(200, content=line).json() for line in lines[:-1]]
        return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])


@asynccontextmanager
async def workers(
    settings: ServerConfig, application: str = "worker_app:counting"
) -> AsyncIterator[Endpoint]:
    """Serve for the length of the context."""
    stop = asyncio.Event()
    address = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_workers(
            settings,
            stop=stop,
            application=application,
            listening=lambda host, port: address.set_result(port),
        )
    )
    await asyncio.wait((address, serving), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    url = f"http://127.0.0.1:{await address}"
    alone = httpx2.Limits(max_keepalive_connections=0)
    try:
        async with httpx2.AsyncClient(
            base_url=url,
            timeout=60,
            trust_env=False,
            limits=alone,
            headers={"authorization": "Bearer sk-all"},
        ) as http:
            yield Endpoint(http, stop, serving)
    finally:
        stop.set()
        await asyncio.wait_for(serving, 60)


async def test_one_that_is_killed_is_replaced_and_the_others_go_on_until_all_drain(
    folder: Path,
) -> None:
    keys = (
        ApiKey(name="all", sha256=digest("sk-all")),
        ApiKey(name="bob", sha256=digest("sk-bob"), requests_per_minute=3),
    )
    async with workers(config(folder, workers=2, api_keys=keys)) as endpoint:
        bob = {"authorization": "Bearer sk-bob"}
        asked = [await endpoint.http.get("/v1/models", headers=bob) for _ in range(20)]
        assert 3 <= [answer.status_code for answer in asked].count(200) <= 4, "of both together"
        assert "trtbuild_requests_in_flight" in (await endpoint.http.get("/metrics")).text

        before = await endpoint.pids(2)
        streams = [asyncio.create_task(endpoint.text()) for _ in range(24)]
        await eventually(lambda: endpoint.has_load(24))
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        results = await asyncio.gather(*streams, return_exceptions=True)
        whole = [result for result in results if result == WORDS]
        broken = [result for result in results if isinstance(result, httpx2.TransportError)]
        assert len(whole) + len(broken) == 24
        assert whole, "the other worker's streams are untouched"
        after = await endpoint.pids(2)
        assert killed not in after
        assert len(after & before) == 1

        # and together they drain
        streams = [asyncio.create_task(endpoint.text()) for _ in range(12)]
        await eventually(lambda: endpoint.has_load(12))
        endpoint.stop.set()
        assert await asyncio.gather(*streams) == [WORDS] * 12
        await endpoint.serving
    for pid in after:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_what_never_starts_ends_the_endpoint_with_the_reason(folder: Path) -> None:
    with pytest.raises(InternalError, match="this tokenizer is broken; found worker"):
        async with workers(config(folder, workers=2), "worker_app:broken"):
            pass


@pytest.mark.parametrize("others_live", [True, False])
async def test_a_worker_that_keeps_dying_is_given_up_unless_others_live(
    folder: Path, others_live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.workers.kept.MAX_EARLY_DEATHS", 1)
    order = Order(config=config(folder), application="worker_app:counting")
    worker = KeptWorker(order, worth_it=lambda: others_live)
    keeping = asyncio.create_task(worker.keep())
    await asyncio.wait_for(worker.ready.wait(), 60)
    worker.signal(signal.SIGKILL)
    if others_live:
        await eventually(lambda: worker.deaths)
        worker.tell(signal.SIGKILL)
        await asyncio.wait_for(keeping, 60)
    else:
        with pytest.raises(InternalError, match="signal SIGKILL"):
            await asyncio.wait_for(keeping, 60)


async def test_a_worker_is_sent_no_signal_that_it_wouldnt_live_through(folder: Path) -> None:
    worker = KeptWorker(Order(config=config(folder), application="worker_app:counting"))
    keeping = asyncio.create_task(worker.keep())

    def is_ready() -> bool:
        assert not keeping.done()
        worker.reload()
        return worker.ready.is_set()

    await eventually(is_ready)
    assert worker.reload()
    worker.tell(signal.SIGTERM)
    await asyncio.wait_for(keeping, 60)


async def test_a_port_that_another_endpoint_listens_on_is_not_shared(folder: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UnusableSettingError, match="in use"):
            async with workers(config(folder, workers=2, port=other.getsockname()[1])):
                pass


def test_a_shared_folder_is_safe_from_who_tidies_and_from_the_next_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with shared_dir() as (first, _), shared_dir() as (second, _):
        assert {first, second} == set(tmp_path.iterdir())
        own = os.open(first, os.O_RDONLY)
        with pytest.raises(BlockingIOError):  # as systemd-tmpfiles tries
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(own)
    assert not list(tmp_path.iterdir())


def test_another_users_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs = tmp_path / "trtbuild-workers-theirs"
    theirs.mkdir()
    monkeypatch.setattr("os.getuid", lambda: theirs.stat().st_uid + 1)
    with shared_dir():
        assert theirs.exists()
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with shared_dir():
        assert not theirs.exists(), "nothing else kept it"


def test_workers_dont_outlive_their_supervisor_and_the_next_tidies_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from live_proxy import config\n"
        "from server.run import run\n"
        "from server.workers import serve_workers\n"
        "async def main():\n"
        "    await serve_workers(config(Path(sys.argv[1]), workers=2), stop=asyncio.Event(),\n"
        "        application='worker_app:counting', listening=lambda *_: print('up', flush=True))\n"
        "run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGSTOP)
        parent.kill()
    [left] = tmp_path.iterdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with shared_dir():
        assert left.exists(), "a worker is there yet"
    os.kill(int(children[0]), signal.SIGCONT)
    for child in children:
        until(lambda child=child: _is_gone(child))
    with shared_dir():
        assert not left.exists()


def _is_gone(pid: str) -> bool:
    """Or a zombie."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
