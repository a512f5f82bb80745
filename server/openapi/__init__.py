"""What the endpoint offers, as an OpenAPI document and a page that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from server.edge.route import Row
from server.http import JSON
from server.openapi.document import document as document
from server.openapi.page import page
from server.protocol.sse import encode


class OpenApi:
    """The routes' handlers. Both are made when they are first asked for, and off the event loop."""

    def __init__(self, table: Sequence[Row]) -> None:
        self._table = [*table, *self.rows()]

    def rows(self) -> list[Row]:
        """Their part of the route table."""
        return [
            Row(method="GET", path="/openapi.json", handler=self.document, group="open"),
            Row(method="GET", path="/docs", handler=self.docs, group="open"),
        ]

    async def document(self, _: Request) -> Response:
        """GET /openapi.json."""
        return Response(await asyncio.to_thread(lambda: self._document), media_type=JSON)

    async def docs(self, _: Request) -> Response:
        """GET /docs."""
        return HTMLResponse(await asyncio.to_thread(lambda: self._page))

    @cached_property
    def _document(self) -> bytes:
        return encode(document(self._table))

    @cached_property
    def _page(self) -> bytes:
        return page(document(self._table)).encode()
