"""The ASGI application: names each request, routes it, and refuses what has no route."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.edge.call import Call, call_of, put_call
from server.edge.route import PathApp, Row
from server.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    UnusableKeysError,
)
from server.http import error_response
from server.serving import Serving

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_MAX_SHOWN_CHARS = 200
_TIMEOUT_HEADER = "x-request-timeout"
TIMEOUT_PATTERN = r"^(0\.[0-9]{0,8}[1-9]|[1-9][0-9]{0,8}(\.[0-9]{1,9})?)$"
"""Of that header: seconds, more than 0."""
_TIMEOUT = re.compile(TIMEOUT_PATTERN)
_EXPOSED = (
    "x-request-id",
    "openai-processing-ms",
    "retry-after",
    *(
        f"x-ratelimit-{what}-{kind}"
        for what in ("limit", "remaining", "reset")
        for kind in ("requests", "tokens")
    ),
)


class Application:
    """The proxy as ASGI. `leave` makes it say that it is going, `drain` say no to whoever comes;
    what runs goes on."""

    def __init__(self, serving: Serving, rows: Sequence[Row]) -> None:
        self.serving = serving
        self._router = Router(_routes(serving, rows), lifespan=self._lifespan)
        self._router.redirect_slashes = False
        self._app: ASGIApp = self._http
        origins = serving.config.cors_origins
        if origins:
            self._app = CORSMiddleware(
                self._http,
                allow_origins=origins,
                allow_methods=("GET", "POST", "DELETE"),
                allow_headers=("*",),
                expose_headers=_EXPOSED,
            )

    def leave(self) -> None:
        """From now on health says no."""
        self.serving.leaving = True

    def drain(self) -> None:
        """From now on nothing new is taken."""
        self.serving.leaving = self.serving.draining = True

    def reload_keys(self) -> None:
        """Read the file of keys again; when it is no use, say so and go on with the old ones."""
        try:
            _log.info("%d API keys", self.serving.gate.reload())
        except UnusableKeysError as error:
            _log.error("the API keys stay as they were: %s", error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live through the server's life."""
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived = asyncio.get_running_loop().time()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        call = Call(
            request_id=given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
            arrived=arrived,
        )
        put_call(scope, call)
        scope["app"] = self  # starlette's router then raises what it refuses

        def send_named(message: Message) -> Awaitable[None]:  # no coroutine: each costs a token
            if message["type"] == "http.response.start":
                call.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers(call)]
            return send(message)

        try:
            call.deadline = self._deadline(arrived, headers.get(_TIMEOUT_HEADER))
            await self._router(scope, receive, send_named)
        except (HTTPException, InvalidRequestError) as error:
            await self._refuse(error, scope, receive, send_named)

    async def _refuse(
        self, error: HTTPException | InvalidRequestError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer what got to no row of the table, which telemetry knows nothing of yet."""
        call, telemetry = call_of(scope), self.serving.telemetry
        exchange = telemetry.arrived(scope, path="", endpoint="", request_id=call.request_id)
        if isinstance(error, HTTPException):
            response = _refusal(scope, error)
        else:
            response = error_response(error)
        if response.status_code >= 400:
            exchange.failed(error, response.status_code)
        try:
            await response(scope, receive, send)
        finally:
            exchange.status = call.status
            telemetry.over(exchange)

    def _headers(self, call: Call) -> list[tuple[bytes, bytes]]:
        elapsed_ms = (asyncio.get_running_loop().time() - call.arrived) * 1000
        named = [
            (b"x-request-id", call.request_id.encode()),
            (b"openai-processing-ms", b"%d" % elapsed_ms),
            *call.headers,
        ]
        return [*named, (b"connection", b"close")] if self.serving.leaving else named

    def _deadline(self, arrived: float, asked: str | None) -> float | None:
        seconds = self.serving.config.request_timeout_seconds
        if asked is not None:
            if not _TIMEOUT.fullmatch(asked):
                shown = asked[:_MAX_SHOWN_CHARS]
                raise InvalidRequestError(f"{_TIMEOUT_HEADER} is not a number of seconds: {shown}")
            wanted = float(asked)
            seconds = wanted if seconds is None else min(wanted, seconds)
        return None if seconds is None else arrived + seconds

    @asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        await self.serving.start()
        try:
            yield
        finally:
            await self.serving.close()


def _routes(serving: Serving, rows: Sequence[Row]) -> list[Route]:
    """One route a path, in the order of its first row."""
    paths: dict[str, dict[str, Row]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method] = row
    return [
        Route(path, PathApp(serving, methods), methods=list(methods))
        for path, methods in paths.items()
    ]


def _refusal(scope: Scope, error: HTTPException) -> Response:
    """What has no route, in OpenAI's shape."""
    url = f"{scope['method'][:20]} {scope['path'][:_MAX_SHOWN_CHARS]}"
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return error_response(NotFoundError(f"Unknown request URL: {url}"), headers)
    if error.status_code == 405:
        allowed = sorted({*headers["Allow"].split(", "), "OPTIONS"})
        headers = {"allow": ", ".join(allowed)}
        if scope["method"] == "OPTIONS":
            return Response(status_code=204, headers=headers)
        return error_response(MethodNotAllowedError(f"Not allowed: {url}"), headers)
    return error_response(InvalidRequestError(error.detail), headers)
