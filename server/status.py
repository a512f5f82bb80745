"""How the proxy is: health, load, version, metrics; and what an admin may have it do."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from server.edge.route import Group, Row
from server.errors import InvalidRequestError, NotReadyError, UnusableKeysError
from server.http import json_response, shutting_down
from server.serving import Serving
from server.telemetry import CONTENT_TYPE
from server.version import PACKAGE, own_version


class Status:
    """The routes' handlers."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def rows(self) -> list[Row]:
        """Their part of the route table."""
        ready = ("/health", "/health/ready", "/v2/health/ready", "/ping")
        live = ("/health/live", "/v2/health/live")
        metrics: Group = "open" if self._serving.config.open_metrics else "admin"
        return [
            *(Row(method="GET", path=path, handler=self.ready, group="open") for path in ready),
            Row(method="POST", path="/ping", handler=self.ready, group="open"),
            *(Row(method="GET", path=path, handler=self.live, group="open") for path in live),
            Row(method="GET", path="/", handler=self.version, group="open"),
            Row(method="GET", path="/version", handler=self.version, group="open"),
            Row(method="GET", path="/metrics", handler=self.metrics, group=metrics),
            Row(method="GET", path="/load", handler=self.load, group="open"),
            Row(method="POST", path="/admin/reload-keys", handler=self.reload_keys, group="admin"),
        ]

    async def ready(self, request: Request) -> Response:
        """GET /health and its like: 200 when a request that is sent now would be served, else 503.

        Of several models one that is ready is enough; `?model=` asks for one by its name.
        """
        serving = self._serving
        if serving.leaving:
            raise shutting_down()
        name = request.query_params.get("model")
        # as `find` does not: health has no task, and no key
        asked = list(serving.models) if name is None else [serving.models.named(name)]
        names = {found.served.triton_model for found in asked}
        ready = await asyncio.gather(*(serving.backend.ready(name) for name in names))
        if not any(ready):
            raise NotReadyError("the model is not ready", do="try again")
        return Response(status_code=200)

    async def live(self, _: Request) -> Response:
        """GET /health/live: 200, as long as there is anybody to say it."""
        return Response(status_code=200)

    async def version(self, _: Request) -> Response:
        """GET /version."""
        return json_response({"name": PACKAGE, "version": own_version()})

    async def load(self, _: Request) -> Response:
        """GET /load: how many requests there are in all workers, running or in line."""
        return json_response({"server_load": self._serving.load.total})

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(await self._serving.metrics.text(), media_type=CONTENT_TYPE)

    async def reload_keys(self, _: Request) -> Response:
        """POST /admin/reload-keys: read the file of keys again, as SIGHUP does."""
        try:
            return json_response({"keys": self._serving.gate.reload()})
        except UnusableKeysError as error:
            raise InvalidRequestError(str(error)) from error
