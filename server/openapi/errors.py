"""The answers that say no: which errors a route may answer with, by their HTTP status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from server.errors import (
    AuthenticationError,
    BodyTooLargeError,
    DeadlineError,
    InternalError,
    InvalidRequestError,
    MediaTypeError,
    ModelNotFoundError,
    NotKeptError,
    NotReadyError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitedError,
    RequestError,
)
from server.openapi.answers.shared import ErrorAnswer
from server.openapi.schemas import Schema, Schemas
from server.protocol.openai_errors import SHAPES

Errors = frozenset[type[RequestError]]

EVERY: Final[Errors] = frozenset({InvalidRequestError, InternalError, NotReadyError})
"""What any request may come to."""
OF_KEYS: Final[Errors] = frozenset({AuthenticationError, PermissionDeniedError, RateLimitedError})
OF_BODIES: Final[Errors] = frozenset({BodyTooLargeError, MediaTypeError})
OF_MODELS: Final[Errors] = frozenset({ModelNotFoundError})
OF_ENGINES: Final[Errors] = frozenset({OverloadedError, DeadlineError})
OF_KEPT: Final[Errors] = frozenset({NotKeptError})

_BY_CONNECTION: Final[Mapping[int, str]] = {
    408: "The request came too slowly.",
    431: "The request's line and headers are too large.",
}
"""What the connection answers before there is a request."""
_RETRY_AFTER: Final[Mapping[str, Any]] = {
    "Retry-After": {
        "description": "When to ask again, in seconds.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: Final[Mapping[int, Mapping[str, Any]]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def answers(errors: Iterable[type[RequestError]], schemas: Schemas) -> dict[str, Schema]:
    """Status → the response, for these errors and those of any connection."""
    words: dict[int, list[str]] = {status: [text] for status, text in _BY_CONNECTION.items()}
    for error in sorted(errors, key=lambda error: error.__name__):
        told = (error.__doc__ or "").split("\n")[0]
        words.setdefault(SHAPES[error].status, []).append(told)
    content = {"application/json": {"schema": schemas.ref(ErrorAnswer)}}
    made = {}
    for status in sorted(words):
        headers = _HEADERS.get(status)
        made[str(status)] = {
            "description": " ".join([f"{HTTPStatus(status).phrase}:", *words[status]]),
            "content": content,
            **({"headers": headers} if headers else {}),
        }
    return made
