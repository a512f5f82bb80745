"""GET /v1/models: what a key may ask for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from server.edge.route import Row
from server.http import json_response
from server.serving import Serving


class Listing:
    """The routes' handlers."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def rows(self) -> list[Row]:
        """Their part of the route table."""
        return [
            Row(method="GET", path="/v1/models", handler=self.models),
            Row(method="GET", path="/v1/models/{id:path}", handler=self.model),
        ]

    async def models(self, request: Request) -> Response:
        """GET /v1/models: models, their aliases and adapters."""
        models = self._serving.models
        shown = [found for found in models if self._serving.may_use(request, found)]
        return json_response({"object": "list", "data": [models.describe(it) for it in shown]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}. One that the key may not use isn't there."""
        models = self._serving.models
        found = models.named(request.path_params["id"])
        if not self._serving.may_use(request, found):
            raise models.unknown(found.name)
        return json_response(models.describe(found))
