"""One row of the route table, and the ASGI application that a path's rows become."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.edge.call import call_of
from server.errors import InternalError, RequestError
from server.http import error_response, shutting_down
from server.protocol.openai_errors import shape
from server.serving import Serving
from server.telemetry import CANCELLED, Exchange

_log = logging.getLogger(__name__)

_CLIENT_GONE = 499

Group = Literal["open", "api", "admin"]
"""Whom a route is for: anybody, whoever has a key, or an admin."""

Handler = Callable[[Request], Awaitable[ASGIApp]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A method and path, and its handler; `endpoint` is what metrics call it ("": nothing)."""

    method: str
    path: str
    handler: Handler
    group: Group = "api"
    endpoint: str = ""


class PathApp:
    """All of one path's rows. Whatever a handler raises becomes an answer here."""

    def __init__(self, serving: Serving, rows: Mapping[str, Row]) -> None:
        self._serving = serving
        self._rows = {**rows}
        if "GET" in rows:
            self._rows.setdefault("HEAD", rows["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        row, call, telemetry = self._rows[scope["method"]], call_of(scope), self._serving.telemetry
        exchange = telemetry.arrived(
            scope, path=row.path, endpoint=row.endpoint, request_id=call.request_id
        )
        try:
            response = await self._response(row, Request(scope, receive, send), exchange)
            await response(scope, receive, send)
        finally:
            self._serving.release(call)
            exchange.status = call.status
            telemetry.over(exchange)

    async def _response(self, row: Row, request: Request, exchange: Exchange) -> ASGIApp:
        try:
            if row.group != "open":
                self._enter(request, row.group, exchange)
            return await row.handler(request)
        except RequestError as error:
            return _refusal(error, exchange)
        except ClientDisconnect:
            exchange.outcome = CANCELLED
            return Response(status_code=_CLIENT_GONE)
        except asyncio.CancelledError:  # the drain is over
            exchange.outcome = CANCELLED
            return error_response(shutting_down())
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer
            _log.exception("a request failed")
            return _refusal(InternalError("the proxy failed", do="see its log"), exchange)

    def _enter(self, request: Request, group: Literal["api", "admin"], exchange: Exchange) -> None:
        if self._serving.draining:
            raise shutting_down()
        call = call_of(request.scope)
        try:
            self._serving.gate.enter(call, request.headers, group)
        finally:
            exchange.key = call.key.name if call.key else ""


def _refusal(error: RequestError, exchange: Exchange) -> Response:
    exchange.failed(error, shape(error).status)
    return error_response(error)
