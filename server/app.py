"""The ASGI application: routes, thin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from server.backend.base import Backend
from server.config import ServerConfig
from server.errors import (
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NotFoundError,
    NotReadyError,
    RequestError,
)
from server.http import JSON, RequestIdMiddleware, error_response, read_body, shutting_down
from server.protocol.openai_errors import shape
from server.protocol.request import TextRequest
from server.protocol.sse import encode
from server.reply import CHAT, COMPLETIONS, Dialect, Reply
from server.telemetry.metrics import CANCELLED, Metrics
from server.text_model import TextModel

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OWNER = "trtbuild"
_CLIENT_GONE = 499


def create_app(config: ServerConfig, backend: Backend) -> ASGIApp:
    """The proxy over `backend`, which it closes at its shutdown.

    Raises UnusableTokenizerError when the model's tokenizer folder can't be used.
    """
    proxy = _Proxy(config, backend)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await backend.close()

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", proxy.chat, methods=["POST"]),
            Route("/v1/completions", proxy.completions, methods=["POST"]),
            Route("/v1/models", proxy.models),
            Route("/v1/models/{id:path}", proxy.model),
            Route("/health", proxy.health),
            Route("/metrics", proxy.metrics_text),
        ],
        middleware=[Middleware(RequestIdMiddleware)],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Proxy:
    """The routes' handlers and what they share."""

    def __init__(self, config: ServerConfig, backend: Backend) -> None:
        self._config, self._backend = config, backend
        self._model = TextModel(config.model, offload_chars=config.offload_chars)
        self._created = int(time.time())
        self._metrics = Metrics()

    async def chat(self, request: Request) -> Response | Reply:
        """POST /v1/chat/completions."""
        return await self._generate(CHAT, request)

    async def completions(self, request: Request) -> Response | Reply:
        """POST /v1/completions."""
        return await self._generate(COMPLETIONS, request)

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return _json({"object": "list", "data": [self._model_json()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        try:
            self._find(request.path_params["id"])
        except ModelNotFoundError as error:
            return error_response(error)
        return _json(self._model_json())

    async def health(self, _: Request) -> Response:
        """GET /health: 200 when a request sent now would be served, else 503."""
        if await self._backend.ready():
            return Response(status_code=200)
        return error_response(NotReadyError("the model is not ready", do="try again"))

    async def metrics_text(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self._metrics.render(), media_type=_METRICS_TYPE)

    async def _generate(self, dialect: Dialect, request: Request) -> Response | Reply:
        try:
            body = await read_body(request, self._config.max_body_bytes)
            parsed = dialect.parse(body)
            model = self._find(parsed.model)
            self._check_prompts(parsed)
        except RequestError as error:
            self._count(dialect, str(shape(error).status))
            return error_response(error)
        except ClientDisconnect:
            self._count(dialect, CANCELLED)
            return Response(status_code=_CLIENT_GONE)
        except asyncio.CancelledError:  # the drain is over
            self._count(dialect, CANCELLED)
            return error_response(shutting_down())
        return Reply(dialect, parsed, model=model, backend=self._backend, metrics=self._metrics)

    def _find(self, name: str) -> TextModel:
        if name == self._config.model.name:
            return self._model
        complaint = f"The model '{name[:100]}' does not exist"
        raise ModelNotFoundError(complaint, param="model", do=f"use '{self._config.model.name}'")

    def _check_prompts(self, parsed: TextRequest) -> None:
        most = self._config.max_prompts
        if len(parsed.prompts) > most:
            raise InvalidRequestError(f"more than {most} prompts", param=parsed.prompt_param)

    def _count(self, dialect: Dialect, outcome: str) -> None:
        self._metrics.requests.labels("", dialect.endpoint, outcome).inc()

    def _model_json(self) -> dict[str, Any]:
        served = self._config.model
        return {
            "id": served.name,
            "object": "model",
            "created": self._created,
            "owned_by": _OWNER,
            "max_model_len": served.max_seq_len,
        }


def _json(content: Any) -> Response:
    return Response(encode(content), media_type=JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in OpenAI's shape."""
    if not isinstance(error, HTTPException):
        raise error
    url = f"{request.method} {request.url.path[:200]}"
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return error_response(NotFoundError(f"Unknown request URL: {url}"), headers)
    if error.status_code == 405:
        return error_response(MethodNotAllowedError(f"Not allowed: {url}"), headers)
    return error_response(InvalidRequestError(error.detail), headers)


async def _unexpected(_: Request, __: Exception) -> Response:
    return error_response(InternalError("the proxy failed", do="see its log"))
