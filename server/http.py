"""HTTP matters that no dialect owns: errors as responses, and clients that leave."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive

from server.errors import (
    AuthenticationError,
    NotReadyError,
    OverloadedError,
    RequestError,
)
from server.protocol import openai_errors
from server.protocol.sse import encode

T = TypeVar("T")

JSON = "application/json"
_RETRY_AFTER_SECONDS = "1"


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and cancel it at once when the client leaves.

    Raises starlette's ClientDisconnect then; the request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


def json_response(content: Any) -> Response:
    """`content` as JSON."""
    return Response(encode(content), media_type=JSON)


def error_response(error: RequestError, headers: dict[str, str] | None = None) -> Response:
    """An error in OpenAI's shape, with the headers that belong to its kind."""
    return Response(
        openai_errors.render(error),
        status_code=openai_errors.shape(error).status,
        media_type=JSON,
        headers={**(headers or {}), **_own_headers(error)},
    )


def shutting_down() -> NotReadyError:
    """What a request that outlasts the drain is told."""
    return NotReadyError("the server is shutting down", do="ask again")


def _own_headers(error: RequestError) -> dict[str, str]:
    if isinstance(error, OverloadedError):
        return {"retry-after": str(math.ceil(error.retry_after_seconds))}
    if isinstance(error, NotReadyError):
        return {"retry-after": _RETRY_AFTER_SECONDS}
    if isinstance(error, AuthenticationError):
        return {"www-authenticate": 'Bearer realm="trtbuild"'}
    return {}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
