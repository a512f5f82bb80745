"""An ASGI response on its way, and how much of it has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.edge.call import ABORT, WRITE
from server.errors import RequestError
from server.http import error_response
from server.reply.dialect import Stream

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_COMMENT = b": keep-alive\n\n"


class Sender:
    """Sends one response. `progress` grows with each piece that was taken; `waiting` says that
    one is being sent now; `ended` that the last one is, or was."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._comment: asyncio.Task[None] | None = None
        self._write: Callable[[bytes], bool] | None = scope.get(WRITE)
        self._unsent = b""
        self.progress = 0
        self.started = self.ended = self.waiting = False
        self.stream: Stream | None = None
        """Who ends the response, once it is one of events."""

    def put(self, body: bytes, *, last: bool = False) -> bool:
        """A piece of a stream, sent at once where that can be; else, and the `last`, by `drain`,
        which must be awaited before more is put. False says so."""
        if not (body or last):
            return True
        if not (last or self._unsent or self._comment) and self._write and self._write(body):
            self.progress += 1
            return True
        self._unsent += body
        self.ended = last
        return False

    async def drain(self) -> None:
        """Send what is left; the status line goes before the first piece."""
        if self._comment:
            await self._comment
        body, self._unsent = self._unsent, b""
        if body:
            await self._piece(body, more=not self.ended)

    async def whole(self, response: Response) -> None:
        """A response that is not a stream."""
        self.started = self.ended = self.waiting = True
        await response(self._scope, self._receive, self._send)
        self.waiting = False

    async def fail(self, error: RequestError) -> None:
        """The error as the response, or as an event when the status line has left already.

        Nothing after the last byte.
        """
        if self.ended:
            await self.drain()
            return
        if self.started and self.stream:
            self.put(self.stream.fail(error), last=True)
            await self.drain()
        else:
            await self.whole(error_response(error))

    def comment(self) -> None:
        """Send one that clients skip, beside whoever else sends, unless something is being sent."""
        if self.stream and not self.waiting and not self.ended:
            self._comment = asyncio.create_task(self._piece(_COMMENT, more=True))
            self._comment.add_done_callback(self._commented)

    async def abort(self) -> None:
        """Cut the client off, so that nothing is kept for it."""
        if drop := self._scope.get(ABORT):
            drop()
            while (await self._receive())["type"] != "http.disconnect":
                pass

    def close(self) -> None:
        """Nothing more is sent."""
        if self._comment:
            self._comment.cancel()

    def _commented(self, task: asyncio.Task[None]) -> None:
        self._comment = None
        if not task.cancelled():
            task.exception()  # who sends next meets it too

    async def _piece(self, body: bytes, *, more: bool) -> None:
        self.waiting = True
        if not self.started:
            self.started = True
            headers = list(_STREAM_HEADERS)
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self.waiting = False
        self.progress += 1
