"""What each key has had of late, kept where all workers of the endpoint see it."""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.auth.key import MOST_KEYS, ApiKey
from server.config import MAX_WORKERS

_ROWS = 2 * MOST_KEYS
_NAME_BYTES = 16
_GENERATION = struct.Struct("<Q")
_BUCKETS = struct.Struct("<ddd")  # requests left, tokens left, when
_COUNT = struct.Struct("<i")
_ROW_BYTES = _NAME_BYTES + _BUCKETS.size + MAX_WORKERS * _COUNT.size
_MINUTE_SECONDS = 60.0
_clock = time.monotonic


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What a key has left. None: it has no such limit. `wait_seconds` is 0 when it may go on."""

    requests: float | None
    tokens: float | None
    wait_seconds: float


class Ledger:
    """Buckets that fill evenly, a minute's share at most, for as many keys as there may be, and as
    many again that were of late.

    One worker keeps it in its own memory; several in `path`, under that file's lock. Times are the
    machine's monotonic clock. A worker that died leaves nothing behind: its next of that number
    begins with nothing in flight.
    """

    def __init__(self, path: Path | None = None, worker: int = 0) -> None:
        size_bytes = _GENERATION.size + _ROWS * _ROW_BYTES
        self._file = path.open("a+b") if path else None
        if self._file:
            self._file.truncate(size_bytes)
        self._memory = mmap.mmap(self._file.fileno() if self._file else -1, size_bytes)
        self._column = _NAME_BYTES + _BUCKETS.size + worker * _COUNT.size
        self._rows: dict[str, int] = {}
        for row in range(_ROWS):
            _COUNT.pack_into(self._memory, self._place(row) + self._column, 0)

    @property
    def generation(self) -> int:
        """How often the keys were read again, by any worker."""
        generation: int = _GENERATION.unpack_from(self._memory)[0]
        return generation

    def next_generation(self) -> int:
        """Have every worker read its keys again."""
        with self._lock():
            generation = self.generation + 1
            _GENERATION.pack_into(self._memory, 0, generation)
        return generation

    def take(self, key: ApiKey) -> Standing:
        """One request of `key` begins, unless it must wait; `give` ends it."""
        with self._lock():
            place = self._find(key)
            requests, tokens = self._filled(key, place)
            running = sum(self._in_flight(place))
            wait = _wait_seconds(key, requests, tokens, running)
            if not wait:
                requests -= 1
                self._add(place, 1)
            _BUCKETS.pack_into(self._memory, place + _NAME_BYTES, requests, tokens, _clock())
        return Standing(
            requests=None if key.requests_per_minute is None else max(requests, 0),
            tokens=None if key.tokens_per_minute is None else max(tokens, 0),
            wait_seconds=wait,
        )

    def give(self, key: ApiKey, spent_tokens: int) -> None:
        """A request of `key` is over, which read and wrote so many tokens."""
        with self._lock():
            place = self._find(key)
            requests, tokens = self._filled(key, place)
            self._add(place, -1)
            _BUCKETS.pack_into(
                self._memory,
                place + _NAME_BYTES,
                requests,
                tokens - spent_tokens,
                _clock(),
            )

    def close(self) -> None:
        """Let the memory go."""
        self._memory.close()
        if self._file:
            self._file.close()

    def _filled(self, key: ApiKey, place: int) -> tuple[float, float]:
        """The buckets as they are now."""
        requests, tokens, when = _BUCKETS.unpack_from(self._memory, place + _NAME_BYTES)
        minutes = (_clock() - when) / _MINUTE_SECONDS
        return (
            _grown(requests, minutes, key.requests_per_minute),
            _grown(tokens, minutes, key.tokens_per_minute),
        )

    def _in_flight(self, place: int) -> tuple[int, ...]:
        first = place + _NAME_BYTES + _BUCKETS.size
        return struct.unpack_from(f"<{MAX_WORKERS}i", self._memory, first)

    def _add(self, place: int, count: int) -> None:
        at = place + self._column
        _COUNT.pack_into(self._memory, at, _COUNT.unpack_from(self._memory, at)[0] + count)

    def _find(self, key: ApiKey) -> int:
        """Where the key's row begins; a new key's buckets are full."""
        name = hashlib.sha256(key.name.encode()).digest()[:_NAME_BYTES]
        row = self._rows.get(key.name)
        if row is None or self._name(row) != name:  # another worker may have given it away
            names = [self._name(row) for row in range(_ROWS)]
            row = names.index(name) if name in names else self._begin(name, names)
            self._rows[key.name] = row
        return self._place(row)

    def _begin(self, name: bytes, names: Sequence[bytes]) -> int:
        """A row that nobody has, else the one of nothing in flight that was used longest ago: names
        come and go, and a bucket that isn't used is full soon."""
        if bytes(_NAME_BYTES) in names:
            row = names.index(bytes(_NAME_BYTES))
        else:
            row = min(
                range(_ROWS),
                key=lambda row: (any(self._in_flight(self._place(row))), self._when(row)),
            )
        place = self._place(row)
        self._memory[place : place + _NAME_BYTES] = name
        _BUCKETS.pack_into(self._memory, place + _NAME_BYTES, math.inf, math.inf, _clock())
        return row

    def _name(self, row: int) -> bytes:
        place = self._place(row)
        return self._memory[place : place + _NAME_BYTES]

    def _when(self, row: int) -> float:
        """A row's last use."""
        when: float = _BUCKETS.unpack_from(self._memory, self._place(row) + _NAME_BYTES)[2]
        return when

    @staticmethod
    def _place(row: int) -> int:
        return _GENERATION.size + row * _ROW_BYTES

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _grown(left: float, minutes: float, limit: int | None) -> float:
    """A bucket after so long; without a limit there is no end to it, so that a new one finds it
    full."""
    return math.inf if limit is None else min(left + minutes * limit, limit)


def _wait_seconds(key: ApiKey, requests: float, tokens: float, running: int) -> float:
    """How long until another request may begin; where others must end first, a second."""
    waits = [0.0]
    if key.requests_per_minute and requests < 1:
        waits.append((1 - requests) / key.requests_per_minute * _MINUTE_SECONDS)
    if key.tokens_per_minute and tokens <= 0:
        waits.append((1 - tokens) / key.tokens_per_minute * _MINUTE_SECONDS)
    if key.max_in_flight and running >= key.max_in_flight:
        waits.append(1.0)
    return max(waits)
