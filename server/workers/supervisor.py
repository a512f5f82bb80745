"""Starts the workers, starts again whichever dies, and stops them together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from server.config import MAX_WORKERS, ServerConfig
from server.errors import InternalError
from server.run import family_of, told
from server.workers.kept import KeptWorker
from server.workers.shared_dir import shared_dir
from server.workers.worker import TRITON_APP, Order

_FAREWELL_SECONDS = 5.0


async def serve_workers(
    config: ServerConfig,
    *,
    stop: asyncio.Event,
    hurry: asyncio.Event | None = None,
    listening: Callable[[str, int], None] | None = None,
    application: str = TRITON_APP,
) -> None:
    """Serve with `config.workers` processes; as server.run.serve does with one.

    `listening` is told host and port once all of them take requests. Raises
    UnusableSettingError when the address can't be bound, InternalError when workers don't start or
    all keep dying.
    """
    if config.workers > MAX_WORKERS:
        raise InternalError(f"at most {MAX_WORKERS} workers", found=str(config.workers))
    with _reserved(config) as address, shared_dir() as (shared, lock):
        config = replace(config, port=address[1], shared_dir=shared)
        workers = [
            KeptWorker(
                Order(config=replace(config, worker=number), application=application),
                worth_it=lambda: any(worker.serves for worker in workers),
                inherited=(lock,),
            )
            for number in range(config.workers)
        ]
        if config.api_keys_file:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(
                # one is enough: the others learn of it
                signal.SIGHUP,
                lambda: any(worker.reload() for worker in workers),
            )
        keeping = [asyncio.create_task(worker.keep()) for worker in workers]
        stopping = asyncio.create_task(stop.wait())
        try:
            if await _until_ready(workers, stopping, keeping) and listening:
                listening(*address)
            await asyncio.wait((stopping, *keeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            try:
                await _stop(workers, keeping, hurry or asyncio.Event(), config)
            finally:
                for worker in workers:
                    worker.signal(signal.SIGKILL)


async def _until_ready(
    workers: list[KeptWorker], stopping: asyncio.Task[Any], keeping: list[asyncio.Task[None]]
) -> bool:
    """Whether all workers take requests, before a stop or the end of one."""
    ready = asyncio.ensure_future(asyncio.gather(*(worker.ready.wait() for worker in workers)))
    waited: list[asyncio.Future[Any]] = [ready, stopping, *keeping]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        return True
    ready.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ready
    return False


async def _stop(
    workers: list[KeptWorker],
    keeping: list[asyncio.Task[None]],
    hurry: asyncio.Event,
    config: ServerConfig,
) -> None:
    """Drain all workers; raise what made one give up."""
    hurrying = asyncio.create_task(hurry.wait())
    together: asyncio.Future[Any] = asyncio.gather(*keeping, return_exceptions=True)
    seconds = config.drain_notice_seconds + config.drain_seconds + _FAREWELL_SECONDS
    for number, patience, early in (
        (signal.SIGTERM, seconds, hurrying),
        (signal.SIGINT, _FAREWELL_SECONDS, None),
        (signal.SIGKILL, None, None),
    ):
        for worker in workers:
            worker.tell(number)
        waited: list[asyncio.Future[Any]] = [together, early] if early else [together]
        await asyncio.wait(waited, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if together.done():
            break
    hurrying.cancel()
    for outcome in await together:
        if isinstance(outcome, BaseException):
            raise outcome


@contextlib.contextmanager
def _reserved(config: ServerConfig) -> Iterator[tuple[str, int]]:
    """The address, kept for the workers alone by a socket that never listens."""
    family = family_of(config.host)
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        # sharing a port is for us: another endpoint that shares it would get half of the requests
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with told(config):
            alone.bind((config.host, config.port))
        port = alone.getsockname()[1]
    with socket.socket(family, socket.SOCK_STREAM) as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # connections that an endpoint before us has closed may still be there
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with told(config):
            placeholder.bind((config.host, port))
        yield placeholder.getsockname()[:2]
