"""Clients that stream chat answers and cost little: an HTTP client of a page, many in one process.

    python -m proxying.load --port P --model M [--clients 64] [--requests 2] [--max-tokens 256]

Each client asks on its own connection, again as soon as it has its answer. Events are counted, not
parsed; an answer must end by its length. Prints JSON: see `Outcome`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

_TAIL_BYTES = 1024
_LENGTH = re.compile(rb'"finish_reason": ?"length"')
_DONE = b"data: [DONE]"
_CHUNKED_END = b"0\r\n\r\n"


@dataclass(kw_only=True)
class Outcome:
    """What the clients saw. Times in seconds; `gaps_s` are between two pieces of one answer.

    `received` are, for each answer, the times (time.monotonic) at which its pieces came: only for
    one client.
    """

    tokens: int = 0
    events: int = 0
    errors: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    first_s: list[float] = field(default_factory=list)
    gaps_s: dict[str, float] = field(default_factory=dict)
    received: list[list[float]] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One client: `asks` requests, one after the other."""

    def __init__(self, request: bytes, requests: int, max_tokens: int, keeps: bool) -> None:
        self._request, self._left, self._max_tokens = request, requests, max_tokens
        self._keeps = keeps
        self._tail, self._ends_line = b"", False
        self._asked = 0.0
        self._last: float | None = None
        self.outcome = Outcome()
        self.gaps = array("d")
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever is missing is an error."""
        if not self.done.done():
            self._fail(f"the connection was lost: {exc}")

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        now = time.monotonic()
        if self._last is None:
            self._begun(data)
        count = data.count(b"\n\n") + (self._ends_line and data.startswith(b"\n"))
        self._ends_line = data.endswith(b"\n")
        if count:
            self.outcome.events += count
            if self._last:
                self.gaps.append(now - self._last)
            else:
                self.outcome.first_s.append(now - self._asked)
            self._last = now
            if self._keeps:
                self.outcome.received[-1].append(now)
        self._tail = data if len(data) >= _TAIL_BYTES else (self._tail + data)[-_TAIL_BYTES:]
        if data.endswith(_CHUNKED_END) or self._tail.endswith(_CHUNKED_END):
            self._ended()

    def _ask(self) -> None:
        self._left -= 1
        self._tail, self._last, self._ends_line = b"", None, False
        if self._keeps:
            self.outcome.received.append([])
        self._asked = time.monotonic()
        self._transport.write(self._request)

    def _begun(self, data: bytes) -> None:
        self._last = 0.0
        if not data.startswith(b"HTTP/1.1 200"):
            self._fail(data[:300].decode(errors="replace"))

    def _ended(self) -> None:
        if self.done.done():
            return
        if _DONE not in self._tail or not _LENGTH.search(self._tail):
            self._fail(f"an answer ended with {self._tail[-300:]!r}")
            return
        self.outcome.tokens += self._max_tokens
        if self._left:
            self._ask()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _fail(self, what: str) -> None:
        self.outcome.errors.append(what)
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()


def http_request(model: str, content: str, max_tokens: int, path: str) -> bytes:
    """A streamed chat request, as clients send it."""
    body = json.dumps(
        {
            "model": model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": content},
            ],
            "max_tokens": max_tokens,
            "temperature": 0.7,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nAuthorization: Bearer none\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def quantiles(gaps: array[float]) -> dict[str, float]:
    """Some of them, by name."""
    found = sorted(gaps)
    if not found:
        return {}
    last = len(found) - 1
    places = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: found[round(place * last)] for name, place in places.items()}


async def ask(arguments: argparse.Namespace) -> Outcome:
    """All clients at once."""
    loop = asyncio.get_running_loop()
    content = arguments.content or "Tell me at length how a llama spends its day in the Andes."
    if arguments.content_file:
        content = arguments.content_file.read_text()
    request = http_request(arguments.model, content, arguments.max_tokens, arguments.path)
    alone = arguments.clients == 1
    clients: list[Client] = []
    started, used = time.perf_counter(), time.process_time()

    def make() -> Client:
        return Client(request, arguments.requests, arguments.max_tokens, alone)

    for _ in range(arguments.clients):
        _, client = await loop.create_connection(make, "127.0.0.1", arguments.port)
        clients.append(client)
        if arguments.ramp_s:
            await asyncio.sleep(arguments.ramp_s / arguments.clients)
    await asyncio.wait([client.done for client in clients], timeout=arguments.timeout_s)
    gaps: array[float] = array("d")
    whole = Outcome(wall_s=time.perf_counter() - started, cpu_s=time.process_time() - used)
    for client in clients:
        one = client.outcome
        whole.tokens, whole.events = whole.tokens + one.tokens, whole.events + one.events
        whole.errors += one.errors if client.done.done() else ["no end in time"]
        whole.first_s += one.first_s
        whole.received += one.received
        gaps.extend(client.gaps)
    whole.gaps_s = quantiles(gaps)
    return whole


def main(argv: list[str] | None = None) -> None:
    """Ask, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2, help="of each client")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--ramp-s", type=float, default=0.0, help="over which clients come")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--content", default="")
    parser.add_argument("--content-file", type=Path)
    parser.add_argument("--timeout-s", type=float, default=300.0)
    outcome: dict[str, Any] = asdict(uvloop.run(ask(parser.parse_args(argv))))
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
