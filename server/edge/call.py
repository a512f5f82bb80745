"""What is known of one HTTP request beside its content, from its arrival to its answer's end."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from server.auth.key import ApiKey

_SCOPE_KEY = "trtbuild"
ABORT = "trtbuild.abort"
"""A scope's key for what drops the connection at once, with all that waits to be sent."""
WRITE = "trtbuild.write"
"""A scope's key for what sends a piece of a body that has begun, without waiting; where it can't,
it says False and sends nothing."""


@dataclass(kw_only=True, slots=True)
class Call:
    """One request. Times are the event loop's, in seconds.

    `deadline` is when its answer must have ended, if ever. `key` is whose it is, once that is
    known. It may hold a place in flight (`admitted`) and one of its key's share (`counted`),
    be part of the endpoint's load (`loads`), and have `body_bytes` of the room for bodies.
    `spent_tokens`, read and written, count against the key's limit: whoever answers says
    them. `status` is the answer's, once it has begun; `headers` join the answer's own.
    """

    request_id: str
    arrived: float
    deadline: float | None = None
    key: ApiKey | None = None
    admitted: bool = False
    counted: bool = False
    loads: bool = False
    body_bytes: int = 0
    spent_tokens: int = 0
    status: int | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def put_call(scope: MutableMapping[str, Any], call: Call) -> None:
    """Make `call` known to whoever has the request's scope."""
    scope[_SCOPE_KEY] = call


def call_of(scope: MutableMapping[str, Any]) -> Call:
    """The call that a request's scope belongs to."""
    call: Call = scope[_SCOPE_KEY]
    return call
