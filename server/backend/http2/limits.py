"""The bounds of a connection, and what its parts need of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a connection. `message_bytes` is the largest message that is taken.

    `connect_seconds` is the time for a connection to be made, the peer's first words included.
    After `keepalive_seconds` without a byte a living peer is asked for a sign, which must come
    within `sign_seconds`.
    """

    message_bytes: int = 256 * 1024 * 1024
    connect_seconds: float = 3.0
    keepalive_seconds: float = 15.0
    sign_seconds: float = 2.5


class Watched(Protocol):
    """A connection, to what watches over it."""

    @property
    def limits(self) -> Limits:
        """Its bounds."""
        ...

    @property
    def calls(self) -> Sized:
        """Those under way."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it lives."""
        ...

    @property
    def received_bytes(self) -> int:
        """Of DATA frames."""
        ...

    def write(self, data: bytes) -> None:
        """Send frames."""
        ...

    def lose(self, what: str) -> None:
        """The peer is gone, though nobody said so."""
        ...
