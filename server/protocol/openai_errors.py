"""Our errors in OpenAI's shape: one table, {"error": {message, type, param, code}}."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from server.errors import (
    BodyTooLargeError,
    ContextLengthError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    RequestError,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """How one kind of error leaves: HTTP status, OpenAI's `type`, OpenAI's `code`."""

    status: int
    type: str
    code: str | None


SHAPES: dict[type[RequestError], Shape] = {
    InvalidRequestError: Shape(400, "invalid_request_error", None),
    ContextLengthError: Shape(400, "invalid_request_error", "context_length_exceeded"),
    BodyTooLargeError: Shape(413, "invalid_request_error", "request_too_large"),
    NotFoundError: Shape(404, "invalid_request_error", "unknown_url"),
    ModelNotFoundError: Shape(404, "invalid_request_error", "model_not_found"),
    MethodNotAllowedError: Shape(405, "invalid_request_error", "method_not_supported"),
    OverloadedError: Shape(429, "rate_limit_error", "rate_limit_exceeded"),
    NotReadyError: Shape(503, "server_error", "service_unavailable"),
    InternalError: Shape(500, "server_error", "internal_error"),
}


def shape(error: RequestError) -> Shape:
    """The table's row for the nearest class of `error`; an unknown one is internal."""
    nearest = (SHAPES[kind] for kind in type(error).__mro__ if kind in SHAPES)
    return next(nearest, SHAPES[InternalError])


def render(error: RequestError) -> bytes:
    """The JSON body."""
    row = shape(error)
    content = {"message": str(error), "type": row.type, "param": error.param, "code": row.code}
    return msgspec.json.encode({"error": content})
