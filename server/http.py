"""HTTP matters that no dialect owns: request ids, bounded bodies, disconnects, error responses."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Coroutine
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BodyTooLargeError, InvalidRequestError, NotReadyError, RequestError
from server.protocol import openai_errors

JSON = "application/json"
_RETRY_AFTER_SECONDS = "1"
_RETRIED_STATUSES = {429, 503}
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class RequestIdMiddleware:
    """Every answer carries X-Request-Id: the caller's where it is sane, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and name it in the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class ClientDisconnectedError(Exception):
    """The client left before its answer was complete."""


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, of at most `max_bytes`.

    Raises BodyTooLargeError as soon as it is known to be larger, InvalidRequestError when it is
    compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InvalidRequestError(f"a body of Content-Encoding '{encoding[:40]}' can't be read")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, and cancel it at once when the client leaves.

    Raises ClientDisconnectedError then; the request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnectedError
        task.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


def error_response(error: RequestError, headers: dict[str, str] | None = None) -> Response:
    """An error in OpenAI's shape."""
    status = openai_errors.shape(error).status
    extra = {"retry-after": _RETRY_AFTER_SECONDS} if status in _RETRIED_STATUSES else {}
    return Response(
        openai_errors.render(error),
        status_code=status,
        media_type=JSON,
        headers={**(headers or {}), **extra},
    )


def shutting_down() -> NotReadyError:
    """What a request that outlasts the drain is told."""
    return NotReadyError("the server is shutting down", do="ask again")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than the maximum of {max_bytes} bytes")
