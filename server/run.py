"""Serves the application with uvicorn until told to stop; the caller owns signals and loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import uvicorn
import uvloop
from starlette.types import ASGIApp

from server.config import ServerConfig
from server.errors import InternalError

T = TypeVar("T")

_BACKLOG = 2048
_FAREWELL_SECONDS = 1.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a uvloop event loop."""
    result: T = uvloop.run(main)
    return result


async def serve(
    app: ASGIApp,
    config: ServerConfig,
    *,
    stop: asyncio.Event,
    hurry: asyncio.Event | None = None,
    listening: Callable[[str, int], None] | None = None,
) -> None:
    """Serve `app` at the config's address until `stop` is set, then drain.

    `listening` is told host and port once requests are taken; port 0 takes a free one.
    Draining takes no new connections and lets running requests finish, for `drain_seconds` or
    until `hurry` is set; those that still run are ended with an error. Raises OSError when the
    address can't be bound.
    """
    with _bound(config) as listener:
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
            server.should_exit = True
            await _drain(server, serving, hurry or asyncio.Event(), config.drain_seconds)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield


def _uvicorn_config(app: ASGIApp, config: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
    )


async def _drain(
    server: uvicorn.Server, serving: asyncio.Task[None], hurry: asyncio.Event, seconds: float
) -> None:
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait((serving, hurrying), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    while not serving.done():
        # Once for an error to be sent, once more where the client doesn't read it.
        for task in server.server_state.tasks:
            task.cancel()
        await asyncio.wait((serving,), timeout=_FAREWELL_SECONDS)
    await serving


async def _started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            raise InternalError("the proxy didn't start", do="see its log")
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def _bound(config: ServerConfig) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)
        yield listener
