"""An OpenAI endpoint that costs little, for proxies that don't speak to Triton: LiteLLM's.

    python -m proxying.fake_openai [--step-ms 8]

Any POST is answered with a streamed chat answer of `max_tokens` events, one a step; the port is
printed first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any, cast

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    return _chunked(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_TOKENS = [_event({"content": word}) for word in (" llama", " grazes")]
"""LiteLLM takes the same one again and again for a fault."""
_BEGIN = _HEAD + _event({"role": "assistant", "content": ""})
_END = _event({}, "length") + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """A client's. `left` are the tokens of the answer under way."""

    def __init__(self, connections: set[Connection]) -> None:
        self._connections, self._data, self.left = connections, b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """A request, or a part of one."""
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        sizes = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        if not end or not sizes or len(body) < sizes[0]:
            return
        self._data = b""
        self.left = json.loads(body)["max_tokens"]
        self._transport.write(_BEGIN)
        self._connections.add(self)

    def step(self) -> None:
        """One more token."""
        self.left -= 1
        token = _TOKENS[self.left % len(_TOKENS)]
        self._transport.write(token if self.left else token + _END)
        if not self.left:
            self._connections.discard(self)


async def serve(step_s: float) -> None:
    """Until killed."""
    loop, connections = asyncio.get_running_loop(), set[Connection]()
    server = await loop.create_server(lambda: Connection(connections), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(step_s)
        for connection in list(connections):
            connection.step()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-ms", type=float, default=8.0)
    uvloop.run(serve(parser.parse_args().step_ms / 1e3))


if __name__ == "__main__":
    main()
