"""Serves the application with uvicorn until told to stop; the caller owns signals and loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import uvicorn
import uvloop

from server.config import ServerConfig
from server.edge.application import Application
from server.edge.connection import connections
from server.errors import InternalError, UnusableSettingError

T = TypeVar("T")

_BACKLOG = 2048
_FAREWELL_SECONDS = 1.0
_FAREWELLS = 3


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a uvloop event loop, with as many open files as it may have.

    Each client is one, and the usual limit for a process is 1,024.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    result: T = uvloop.run(main)
    return result


def freeze_memory() -> None:
    """Take what is loaded by now, vocabularies above all, out of the garbage collector's rounds.

    For a process that serves and does nothing else: a full round over a large vocabulary stops all
    streams for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()


async def serve(
    app: Application,
    config: ServerConfig,
    *,
    stop: asyncio.Event,
    hurry: asyncio.Event | None = None,
    listening: Callable[[str, int], None] | None = None,
) -> None:
    """Serve `app` at the config's address until `stop` is set, then drain.

    `listening` is told host and port once requests are taken; port 0 takes a free one.
    Draining takes no new connections and lets running requests finish, for `drain_seconds` or
    until `hurry` is set; those that still run are ended with an error. Raises
    UnusableSettingError when the address can't be bound.
    """
    hurry = hurry or asyncio.Event()
    with bound(config) as listener:
        server = _Server(_uvicorn_config(app, config))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        try:
            await _started(server, serving)
            if listening:
                listening(*listener.getsockname()[:2])
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            app.leave()
            await _settled(serving, hurry, config.drain_notice_seconds)
            app.drain()
            server.should_exit = True
            await _drain(server, serving, hurry, config.drain_seconds)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield


def _uvicorn_config(app: Application, config: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connections(config),
        timeout_keep_alive=config.keep_alive_seconds,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can say X-Forwarded-For
    )


async def _drain(
    server: uvicorn.Server, serving: asyncio.Task[None], hurry: asyncio.Event, seconds: float
) -> None:
    await _settled(serving, hurry, seconds)
    for _ in range(_FAREWELLS):
        if serving.done():
            break
        # Once for an error to be sent, once more where the client doesn't read it.
        for _ in range(2):
            for task in server.server_state.tasks:
                task.cancel()
            await asyncio.wait((serving,), timeout=_FAREWELL_SECONDS)
        for connection in list(server.server_state.connections):
            connection.transport.abort()
    # whoever is still there never goes: the server need not wait for it
    server.server_state.connections.clear()
    server.server_state.tasks.clear()
    await serving


async def _settled(serving: asyncio.Task[None], hurry: asyncio.Event, seconds: float) -> None:
    """Until the server has ended by itself, is told to hurry, or has had its time."""
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait((serving, hurrying), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()


async def _started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            raise InternalError("the proxy didn't start", do="see its log")
        await asyncio.sleep(0.01)


def family_of(host: str) -> socket.AddressFamily:
    """IPv6 where `host` is an address of it."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextlib.contextmanager
def told(config: ServerConfig) -> Iterator[None]:
    """An address that can't be bound in the context becomes UnusableSettingError."""
    try:
        yield
    except (OSError, OverflowError) as error:
        raise UnusableSettingError(
            f"can't listen on {config.host}:{config.port}",
            found=str(error),
            do="choose another --port, or --host",
        ) from error


@contextlib.contextmanager
def bound(config: ServerConfig) -> Iterator[socket.socket]:
    """A socket that listens at the config's address. Raises UnusableSettingError."""
    family = family_of(config.host)
    # asyncio turns Nagle's algorithm off only where the protocol is said
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.workers > 1:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with told(config):
            listener.bind((config.host, config.port))
            listener.listen(_BACKLOG)
        yield listener
