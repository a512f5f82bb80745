"""What the proxy refuses, and what goes wrong behind it: the proxy's part of the one error tree.

RequestError                       from builder.errors; `param` is the caller's own field name
├── InvalidRequestError            the body or a parameter of it can't be honoured
│   ├── ContextLengthError         the prompt leaves no room in the model's context
│   ├── UnknownPreviousError       the answer that it would go on from isn't kept
│   ├── BodyTooLargeError          the body is larger than the proxy takes
│   └── MediaTypeError             the body is not JSON
├── AuthenticationError            no key, or none of ours
├── PermissionDeniedError          the key may not do this
├── NotFoundError                  no such route
│   ├── ModelNotFoundError         no such model
│   └── NotKeptError               no such answer, or item of one, is kept
├── MethodNotAllowedError          the route exists, for another method
├── OverloadedError                a queue is full: the engine's, or ours
│   └── RateLimitedError           the key has had its share for now
├── DeadlineError                  the answer would come, or was, too late
├── NotReadyError                  Triton or its model can't be reached, or is shutting down
└── InternalError                  a fault of ours or of Triton's, not of the request

The only module here that looks down a floor; how each error leaves is each dialect's table.
"""

from __future__ import annotations

from typing import Final

from builder.errors import MissingToolError, OutputError, RequestError, TrtbuildError

__all__ = [
    "MAX_SHOWN_CHARS",
    "AuthenticationError",
    "BodyTooLargeError",
    "ContextLengthError",
    "DeadlineError",
    "InternalError",
    "InvalidRequestError",
    "MediaTypeError",
    "MethodNotAllowedError",
    "MissingToolError",
    "ModelNotFoundError",
    "NotFoundError",
    "NotKeptError",
    "NotReadyError",
    "OutputError",
    "OverloadedError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestError",
    "TrtbuildError",
    "UnknownParserError",
    "UnknownPreviousError",
    "UnusableKeysError",
    "UnusableSettingError",
    "UnusableStoreError",
    "UnusableTokenizerError",
    "shown",
]

MAX_SHOWN_CHARS: Final = 160


def shown(value: object) -> str:
    """What an error echoes of a request: its beginning, as it can be as long as a body."""
    return str(value)[:MAX_SHOWN_CHARS]


class InvalidRequestError(RequestError):
    """The body, or a parameter of it, can't be honoured."""


class ContextLengthError(InvalidRequestError):
    """The prompt leaves no room in the model's context."""


class UnknownPreviousError(InvalidRequestError):
    """The answer that the request would go on from isn't kept."""


class BodyTooLargeError(InvalidRequestError):
    """The body is larger than the proxy takes."""


class MediaTypeError(InvalidRequestError):
    """The body is said to be something else than JSON."""


class AuthenticationError(RequestError):
    """The request bears no key, or one that isn't known."""


class PermissionDeniedError(RequestError):
    """The request's key is known, and may not do this."""


class NotFoundError(RequestError):
    """There is no such route."""


class ModelNotFoundError(NotFoundError):
    """There is no such model."""


class NotKeptError(NotFoundError):
    """No such answer, or item of one, is kept for this caller."""


class MethodNotAllowedError(RequestError):
    """The route exists, for another method."""


class OverloadedError(RequestError):
    """A queue is full; it may have room in `retry_after_seconds`."""

    def __init__(
        self,
        what: str,
        *,
        param: str | None = None,
        found: str | None = None,
        do: str | None = None,
        retry_after_seconds: float = 1.0,
    ) -> None:
        super().__init__(what, param=param, found=found, do=do)
        self.retry_after_seconds = retry_after_seconds


class RateLimitedError(OverloadedError):
    """The key has had its share; there is more in `retry_after_seconds`."""


class DeadlineError(RequestError):
    """The time that the request may take is over."""


class NotReadyError(RequestError):
    """Triton or its model can't be reached, or is shutting down."""


class InternalError(RequestError):
    """A fault of ours or of Triton's, not of the request."""


class UnusableStoreError(TrtbuildError):
    """The folder for answers can't be written; the proxy doesn't start."""


class UnusableSettingError(TrtbuildError):
    """An address or a file that the proxy was told can't be used; it doesn't start."""


class UnusableTokenizerError(TrtbuildError):
    """The tokenizer folder can't be read; the proxy doesn't start."""


class UnusableKeysError(TrtbuildError):
    """API keys can't be read, or aren't what they should be."""


class UnknownParserError(TrtbuildError):
    """There is no parser of tool calls or of reasoning by that name; the proxy doesn't start."""

    exit_code = 2
