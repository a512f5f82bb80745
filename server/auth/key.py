"""An API key as the proxy knows it: never the key itself."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

PREFIX = "sk-trtbuild-"
_SECRET_BYTES = 32
MOST_KEYS = 512
"""Of one endpoint. What they have had is kept in a table twice as long, as names may change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """One caller: `sha256` is the key's digest, in hexadecimal.

    `models` are the names that it may use (None: all). The limits hold for all its requests
    together; `tokens_per_minute` counts read and written ones. `admin` opens the admin routes,
    and no others: an admin's key is no client's.
    """

    name: str
    sha256: str
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    admin: bool = False

    def may_use(self, model: str) -> bool:
        """Whether `model`, as clients call it, is open to this key."""
        return self.models is None or model in self.models


def new_key() -> str:
    """A key that nobody guesses."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(key: str) -> str:
    """What is kept of a key. Keys are random and long: a slow hash would guard nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()
