"""One HTTP request and its answer, as the access log and the traces will tell of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.telemetry.tracing import UNTRACED, RequestTrace

OK = "ok"
CANCELLED = "cancelled"
"""The client left before its answer was complete."""

_KEY = "trtbuild.exchange"


@dataclass(kw_only=True, slots=True, eq=False)
class Exchange:
    """What is known of a request so far. Whoever learns something says it here.

    `endpoint` is what metrics call the route, "" where they don't count it. `key` is an API key's
    name, never the key. `arrived` is time.perf_counter's. `outcome` is "ok", "cancelled" or a
    status, None while nobody has said; `error` the class of what went wrong.
    """

    method: str = ""
    path: str = ""
    endpoint: str = ""
    client: str = ""
    request_id: str = ""
    key: str = ""
    arrived: float = field(default_factory=time.perf_counter)
    began: float = field(default_factory=time.time)
    trace: RequestTrace = UNTRACED
    status: int | None = None
    outcome: str | None = None
    error: str | None = None
    queued_seconds: float | None = None
    """What it waited for its turn in the proxy."""
    measured: bool = False
    keeps_content: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """What the access log has besides; set by the request's meter."""
    keeps_prompts: bool = False
    keeps_body: bool = False
    prompts: Sequence[Sequence[int]] = ()
    body: bytes = b""
    """Of those that are to be kept: the prompts' token ids, the request as it came."""
    recorded: dict[str, Any] = field(default_factory=dict)
    """What a recording has besides `facts`; set by the request's meter."""

    @property
    def error_type(self) -> str | None:
        """OpenTelemetry's error.type; None for what went well."""
        return None if self.outcome in (None, OK) else self.error or self.outcome

    def failed(self, error: BaseException, status: int) -> None:
        """It is refused, or ends, with an error; `status` is what the client is told."""
        self.outcome, self.error = str(status), type(error).__name__

    def headers_for_triton(self) -> Mapping[str, str]:
        """W3C trace headers for what is asked of Triton on this request's behalf."""
        return self.trace.headers_for_triton()


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """The request's; a new one that nobody reports where no middleware gave it any."""
    found = scope.get(_KEY)
    return found if isinstance(found, Exchange) else attach(scope, Exchange())


def attach(scope: MutableMapping[str, Any], exchange: Exchange) -> Exchange:
    """Make `exchange` the request's."""
    scope[_KEY] = exchange
    return exchange


def milliseconds(seconds: float | None) -> float | None:
    """To a microsecond, as a log shows it."""
    return None if seconds is None else round(seconds * 1e3, 3)
