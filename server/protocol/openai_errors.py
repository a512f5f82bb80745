"""Our errors in OpenAI's shape: one table, {"error": {message, type, param, code}}."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from server.errors import (
    AuthenticationError,
    BodyTooLargeError,
    ContextLengthError,
    DeadlineError,
    InternalError,
    InvalidRequestError,
    MediaTypeError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NotFoundError,
    NotKeptError,
    NotReadyError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitedError,
    RequestError,
    UnknownPreviousError,
)

MAX_MESSAGE_CHARS = 2000
MAX_PARAM_CHARS = 200


@dataclass(frozen=True, slots=True)
class Shape:
    """How one kind of error leaves: HTTP status, OpenAI's `type`, OpenAI's `code`."""

    status: int
    type: str
    code: str | None


SHAPES: dict[type[RequestError], Shape] = {
    InvalidRequestError: Shape(400, "invalid_request_error", None),
    ContextLengthError: Shape(400, "invalid_request_error", "context_length_exceeded"),
    UnknownPreviousError: Shape(400, "invalid_request_error", "previous_response_not_found"),
    BodyTooLargeError: Shape(413, "invalid_request_error", "request_too_large"),
    MediaTypeError: Shape(415, "invalid_request_error", "unsupported_media_type"),
    AuthenticationError: Shape(401, "authentication_error", "invalid_api_key"),
    PermissionDeniedError: Shape(403, "permission_error", "permission_denied"),
    NotFoundError: Shape(404, "invalid_request_error", "unknown_url"),
    ModelNotFoundError: Shape(404, "invalid_request_error", "model_not_found"),
    NotKeptError: Shape(404, "invalid_request_error", None),
    MethodNotAllowedError: Shape(405, "invalid_request_error", "method_not_supported"),
    OverloadedError: Shape(429, "rate_limit_error", "rate_limit_exceeded"),
    RateLimitedError: Shape(429, "rate_limit_error", "rate_limit_exceeded"),
    DeadlineError: Shape(504, "server_error", "deadline_exceeded"),
    NotReadyError: Shape(503, "server_error", "service_unavailable"),
    InternalError: Shape(500, "server_error", "internal_error"),
}


def shape(error: RequestError) -> Shape:
    """The table's row for the nearest class of `error`; an unknown one is internal."""
    nearest = (SHAPES[kind] for kind in type(error).__mro__ if kind in SHAPES)
    return next(nearest, SHAPES[InternalError])


def error_message(error: RequestError) -> str:
    """What is told of it. What that echoes of a request is bounded."""
    return str(error)[:MAX_MESSAGE_CHARS]


def render(error: RequestError) -> bytes:
    """The JSON body."""
    row = shape(error)
    param = error.param and error.param[:MAX_PARAM_CHARS]
    content = {"message": error_message(error), "type": row.type, "param": param, "code": row.code}
    return msgspec.json.encode({"error": content})
