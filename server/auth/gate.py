"""Decides whether a request may come in, and takes its key's share."""

from __future__ import annotations

import logging
import time
from typing import Literal

from starlette.datastructures import Headers

from server.auth.key import ApiKey
from server.auth.keys import Keys, read_file
from server.auth.ledger import Ledger, Standing
from server.config import ServerConfig
from server.edge.call import Call
from server.errors import (
    AuthenticationError,
    PermissionDeniedError,
    RateLimitedError,
    UnusableKeysError,
)

_log = logging.getLogger(__name__)

_LEDGER = "keys"
_RETRY_SECONDS = 1.0


class Gate:
    """All keys and their limits. Raises UnusableKeysError for their file.

    Without a file of keys and a client's key the endpoint is open to all; without an admin's, the
    admin routes to nobody.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        shared = config.shared_dir
        self._ledger = Ledger(shared / _LEDGER if shared else None, config.worker)
        self._generation = self._ledger.generation  # first: another may change them meanwhile
        self._keys = self._read()
        self._retry_at = 0.0

    def enter(self, call: Call, headers: Headers, group: Literal["api", "admin"]) -> None:
        """Let `call` in, as its key's, and count it; `release` ends it.

        Raises AuthenticationError, PermissionDeniedError, RateLimitedError.
        """
        if self._generation != self._ledger.generation:
            self._read_again()
        if group == "api" and self._is_open:
            return
        key = self._authenticated(headers)
        if key.admin != (group == "admin"):
            whom = "an admin" if group == "admin" else "clients"
            raise PermissionDeniedError(f"this route is for {whom}: the key is not")
        call.key = key
        if group == "api" and _is_limited(key):
            self._count(call, key)

    def release(self, call: Call) -> None:
        """The request is over."""
        if call.key and call.counted:
            call.counted = False
            self._ledger.give(call.key, call.spent_tokens)

    def close(self) -> None:
        """Let the ledger go."""
        self._ledger.close()

    def reload(self) -> int:
        """Read the keys again, in all workers, and say how many there are.

        Raises UnusableKeysError, and the keys stay as they were.
        """
        self._keys = self._read()
        self._generation = self._ledger.next_generation()
        return len(self._keys)

    @property
    def _is_open(self) -> bool:
        # a file without keys opens nothing
        return self._config.api_keys_file is None and not self._keys.for_clients

    def _read(self) -> Keys:
        path = self._config.api_keys_file
        return Keys((*self._config.api_keys, *(read_file(path) if path else ())))

    def _read_again(self) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            return
        generation = self._ledger.generation
        try:
            self._keys = self._read()
        except UnusableKeysError as error:
            self._retry_at = now + _RETRY_SECONDS  # it may be half written
            _log.error("the API keys stay as they were: %s", error)
        else:
            self._generation = generation

    def _authenticated(self, headers: Headers) -> ApiKey:
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            presented = headers.get("x-api-key", "")
        if not presented.strip():
            raise AuthenticationError(
                "The request has no API key", do="send it as Authorization: Bearer KEY"
            )
        key = self._keys.find(presented.strip())
        if key is None:
            raise AuthenticationError("The API key is not one of this endpoint's")
        return key

    def _count(self, call: Call, key: ApiKey) -> None:
        standing = self._ledger.take(key)
        call.headers += _headers(key, standing)
        call.counted = not standing.wait_seconds
        if standing.wait_seconds:
            raise RateLimitedError(
                f"The key '{key.name}' is at its limit",
                do="ask again later",
                retry_after_seconds=standing.wait_seconds,
            )


def _is_limited(key: ApiKey) -> bool:
    return bool(key.requests_per_minute or key.tokens_per_minute or key.max_in_flight)


def _headers(key: ApiKey, standing: Standing) -> list[tuple[bytes, bytes]]:
    """OpenAI's headers for what is left of a minute's share, and when it is whole again."""
    made = []
    for kind, limit, left in (
        ("requests", key.requests_per_minute, standing.requests),
        ("tokens", key.tokens_per_minute, standing.tokens),
    ):
        if limit and left is not None:
            full_in_seconds = (limit - left) / limit * 60
            made += [
                (f"x-ratelimit-limit-{kind}".encode(), b"%d" % limit),
                (f"x-ratelimit-remaining-{kind}".encode(), b"%d" % left),
                (f"x-ratelimit-reset-{kind}".encode(), b"%.3fs" % full_in_seconds),
            ]
    return made
