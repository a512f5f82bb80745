"""What every handler is given: the proxy's parts, and the steps that all requests begin with."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from server.admission import Admission
from server.auth.gate import Gate
from server.backend.base import Backend
from server.config import ServerConfig
from server.edge.body import BodyRoom, check_nesting, depth_of, read_body
from server.edge.call import Call, call_of
from server.edge.load import Load
from server.errors import PermissionDeniedError
from server.http import unless_gone
from server.models import Found, Models, Task
from server.telemetry import Telemetry, exchange_of

__all__ = ["Serving"]

_LOAD = "load"
_MAX_NESTING = 64
"""Of arrays and objects in a body."""


class Serving:
    """One worker's parts, made once. Raises UnusableTokenizerError for a model's tokenizer.

    A handler calls `accept`, parses what it returns, and finds the model with `find`. The place
    that `accept` takes is given back when the handler's response has ended.
    """

    def __init__(self, config: ServerConfig, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.models = Models(config)
        self.telemetry = Telemetry(config)
        self.metrics = self.telemetry.metrics
        self.gate = Gate(config)
        self.admission = Admission(
            max(1, _share(config.max_in_flight, config)), _share(config.max_waiting, config)
        )
        self.room = BodyRoom(config.max_held_bytes)
        shared = config.shared_dir
        self.load = Load(shared / _LOAD if shared else None, config.worker)
        self.metrics.watch_waiting(lambda: self.admission.waiting)
        self.leaving = self.draining = False
        """Leaving, it says so to who asks; draining, it takes nothing new."""
        self._closing: list[Callable[[], Awaitable[None]]] = [self.telemetry.close, backend.close]

    async def start(self) -> None:
        """Begin what goes on beside requests, in the event loop."""
        depth_of(b"")  # loads numpy before anybody waits for it
        await self.telemetry.start()

    def at_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have `close` called when the proxy ends, before the backend is closed."""
        self._closing.append(close)

    async def close(self) -> None:
        """Let everything go, the newest first."""
        for close in reversed(self._closing):
            await close()
        self.gate.close()
        self.load.close()

    async def accept(self, request: Request, *, admit: bool = True) -> bytes:
        """The request's JSON body, as soon as there is room for the request.

        `admit` False is for what the engine has no part in. Raises InvalidRequestError for a body
        that is too large, too deep, compressed or no JSON by its type, OverloadedError,
        DeadlineError, and starlette's ClientDisconnect when the client has gone meanwhile.
        """
        body = await read_body(request, self.config.max_body_bytes, self.room)
        exchange = exchange_of(request.scope)
        if exchange.keeps_body:
            exchange.body = body
        await check_nesting(body, _MAX_NESTING)
        if admit:
            await self.admit(request)
        return body

    async def admit(self, request: Request) -> None:
        """Wait for the request's turn. Raises as `accept` does."""
        call, exchange = call_of(request.scope), exchange_of(request.scope)
        exchange.queued_seconds = 0.0
        call.loads = True
        self.load.add(1)
        if not self.admission.enter_now():
            began = time.perf_counter()
            await unless_gone(request.receive, self._enter(call))
            exchange.queued_seconds = time.perf_counter() - began
        call.admitted = True

    async def _enter(self, call: Call) -> None:
        await self.admission.enter(call.deadline)
        call.admitted = True

    def find(self, request: Request, name: str | None, task: Task = "generate") -> Found:
        """The model that a client calls `name` (None: the default), if its key may use it.

        Raises ModelNotFoundError, InvalidRequestError for a model of another task,
        PermissionDeniedError.
        """
        found = self.models.find(name, task)
        if not self.may_use(request, found):
            raise PermissionDeniedError(
                f"The key may not use the model '{found.name}'", param="model"
            )
        return found

    def may_use(self, request: Request, found: Found) -> bool:
        """Whether the request's key may use that model, by that name."""
        key = call_of(request.scope).key
        return key is None or key.may_use(found.name)

    def release(self, call: Call) -> None:
        """The request has been answered: its place and its key's go to others."""
        self.room.give(call)
        if call.loads:
            call.loads = False
            self.load.add(-1)
        try:
            if call.admitted:
                call.admitted = False
                self.admission.leave()
        finally:
            self.gate.release(call)


def _share(whole: int, config: ServerConfig) -> int:
    """This worker's part of a number that is the endpoint's."""
    workers = max(config.workers, 1)
    return whole // workers + (config.worker < whole % workers)
