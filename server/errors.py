"""What the proxy refuses, and what goes wrong behind it: the proxy's part of the one error tree.

RequestError                       from builder.errors; `param` is the caller's own field name
├── InvalidRequestError            the body or a parameter of it can't be honoured
│   ├── ContextLengthError         the prompt leaves no room in the model's context
│   └── BodyTooLargeError          the body is larger than the proxy takes
├── NotFoundError                  no such route
│   └── ModelNotFoundError         no such model
├── MethodNotAllowedError          the route exists, for another method
├── OverloadedError                the engine's queue is full
├── NotReadyError                  Triton or its model can't be reached, or is shutting down
└── InternalError                  a fault of ours or of Triton's, not of the request

The only module here that looks down a floor; how each error leaves is each dialect's table.
"""

from __future__ import annotations

from builder.errors import RequestError, TrtbuildError

__all__ = [
    "BodyTooLargeError",
    "ContextLengthError",
    "InternalError",
    "InvalidRequestError",
    "MethodNotAllowedError",
    "ModelNotFoundError",
    "NotFoundError",
    "NotReadyError",
    "OverloadedError",
    "RequestError",
    "TrtbuildError",
    "UnusableTokenizerError",
]


class InvalidRequestError(RequestError):
    """The body, or a parameter of it, can't be honoured."""


class ContextLengthError(InvalidRequestError):
    """The prompt leaves no room in the model's context."""


class BodyTooLargeError(InvalidRequestError):
    """The body is larger than the proxy takes."""


class NotFoundError(RequestError):
    """There is no such route."""


class ModelNotFoundError(NotFoundError):
    """There is no such model."""


class MethodNotAllowedError(RequestError):
    """The route exists, for another method."""


class OverloadedError(RequestError):
    """The engine's queue is full."""


class NotReadyError(RequestError):
    """Triton or its model can't be reached, or is shutting down."""


class InternalError(RequestError):
    """A fault of ours or of Triton's, not of the request."""


class UnusableTokenizerError(TrtbuildError):
    """The tokenizer folder can't be read; the proxy doesn't start."""
