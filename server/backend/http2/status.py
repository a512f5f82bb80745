"""How a gRPC call ends: the codes, and what becomes of HTTP/2's and HTTP's errors.

Source of the two tables: gRPC's "HTTP2 transport mapping" and "HTTP to gRPC status code mapping".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final
from urllib.parse import unquote

from server.backend.http2 import frames


class Status(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_BY_RESET: Final = {
    frames.REFUSED_STREAM: Status.UNAVAILABLE,
    frames.CANCEL: Status.CANCELLED,
    frames.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    frames.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
_BY_HTTP: Final = {
    "400": Status.INTERNAL,
    "401": Status.UNAUTHENTICATED,
    "403": Status.PERMISSION_DENIED,
    "404": Status.UNIMPLEMENTED,
    "429": Status.UNAVAILABLE,
    "502": Status.UNAVAILABLE,
    "503": Status.UNAVAILABLE,
    "504": Status.UNAVAILABLE,
}


class CallError(Exception):
    """A call ended without success. `untaken`: the peer surely never began to work on it."""

    def __init__(self, status: Status, message: str, *, untaken: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.untaken = status, message, untaken


def of_reset(code: int) -> CallError:
    """What RST_STREAM says."""
    status = _BY_RESET.get(code, Status.INTERNAL)
    untaken = code == frames.REFUSED_STREAM
    return CallError(status, f"the stream was reset, HTTP/2 code {code}", untaken=untaken)


def of_head(head: Mapping[str, str]) -> CallError | None:
    """What is wrong with an answer's first headers, if anything is."""
    status = head.get(":status", "")
    if status != "200":
        return CallError(_BY_HTTP.get(status, Status.UNKNOWN), f"HTTP status {status or 'missing'}")
    kind = head.get("content-type", "")
    if not kind.startswith("application/grpc"):
        return CallError(Status.UNKNOWN, f"not a gRPC answer: content-type {kind or 'missing'}")
    return None


def of_trailers(trailers: Mapping[str, str]) -> CallError | None:
    """What the last headers say; None is success."""
    code = trailers.get("grpc-status", "")
    message = unquote(trailers.get("grpc-message", ""))
    if code == "0":
        return None
    try:
        status = Status(int(code))
    except ValueError:
        return CallError(Status.UNKNOWN, message or f"grpc-status {code or 'missing'}")
    return CallError(status, message or status.name)
