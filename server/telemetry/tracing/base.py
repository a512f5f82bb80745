"""What a tracer is, and the one that makes no spans: it hands the caller's context on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

RawHeaders = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""

# https://www.w3.org/TR/trace-context/#traceparent-header; version ff is forbidden, ids of zeros too
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
_MAX_TRACESTATE_BYTES = 512


class RequestTrace(Protocol):
    """One request's spans, if there are any."""

    @property
    def recording(self) -> bool:
        """Whether anybody reads attributes."""
        ...

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, or ""."""
        ...

    def headers_for_triton(self) -> Mapping[str, str]:
        """`traceparent` and perhaps `tracestate`; none without a trace."""
        ...

    def generating(self, attributes: Mapping[str, Any]) -> None:
        """Generation begins; `attributes` are those of `genai.begin`."""
        ...

    def generated(self, attributes: Mapping[str, Any], *, error: str | None = None) -> None:
        """Generation is over; `error` is an error.type."""
        ...

    def end(self, *, status: int | None, error: str | None) -> None:
        """The HTTP request is over; `status` None has not been sent."""
        ...


class Tracer(Protocol):
    """Makes a trace of each request."""

    def request(self, headers: RawHeaders, *, method: str, path: str) -> RequestTrace:
        """An HTTP request has arrived; `path` is a route's, of which there are few."""
        ...

    def close(self) -> None:
        """Send what is left, within seconds."""
        ...


class Untraced:
    """A trace of none of ours; what came goes on."""

    __slots__ = ("_headers",)

    recording = False

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._headers = headers or {}

    @property
    def trace_id(self) -> str:
        """The caller's."""
        return self._headers.get("traceparent", "")[3:35]

    def headers_for_triton(self) -> Mapping[str, str]:
        """As they came."""
        return self._headers

    def generating(self, attributes: Mapping[str, Any]) -> None:
        """Nobody reads it."""

    def generated(self, attributes: Mapping[str, Any], *, error: str | None = None) -> None:
        """Nobody reads it."""

    def end(self, *, status: int | None, error: str | None) -> None:
        """Nobody reads it."""


UNTRACED = Untraced()


class PassOn:
    """The tracer without OpenTelemetry."""

    def request(self, headers: RawHeaders, *, method: str, path: str) -> RequestTrace:
        """Its context, where it is well-formed."""
        return Untraced(passed) if (passed := context(headers)) else UNTRACED

    def close(self) -> None:
        """There is nothing left to send."""


def context(headers: RawHeaders) -> dict[str, str]:
    """The W3C trace context in a request's headers; none where `traceparent` is malformed."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1 or not _TRACEPARENT.fullmatch(parents[0]):
        return {}
    states = [value for name, value in headers if name == b"tracestate"]
    state = b",".join(states).decode("ascii", "ignore")
    found = {"traceparent": parents[0].decode("ascii", "ignore")}
    if state and state.isprintable() and len(state) <= _MAX_TRACESTATE_BYTES:
        found["tracestate"] = state
    return found
