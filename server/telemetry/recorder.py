"""A recording of the load: a line for each request that got as far as its prompt, to be replayed.

The lines are mooncake_trace's, as aiperf reads it (aiperf.dataset.loader.models.MooncakeTrace), and
vllm bench's timed_trace; what is known besides is in one field of our own. Without content a prompt
is its length and the hashes of its beginnings: those with the same hash began alike, which is all
that can be told of them.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from server.config import ServerConfig
from server.errors import OutputError
from server.protocol.request import TextRequest
from server.telemetry.access_log import encoded
from server.telemetry.exchange import Exchange
from server.telemetry.line_file import LineFile

BLOCK_TOKENS = 16
"""Of a hash: vllm bench's and Bailian's, and a divisor of the KV cache's blocks."""
_ID_BITS = 53
"""As many as JSON's readers keep."""
_HASH_BYTES = 8
_TOKEN_BYTES = 4
_HELD_TOKEN_BYTES = 36
"""Of an int in a list."""
_LINE_BYTES = 2000
"""About what a line holds besides its prompt."""
_TOLD = (
    *("time", "request_id", "key", "route", "status", "outcome", "error", "model", "stream"),
    *("prompt_tokens", "cached_tokens", "completion_tokens", "finish_reason"),
    *("queue_ms", "ttft_ms", "duration_ms"),
)
"""What a recording, which is handed on, says of what the access log does."""

_ASKED: Mapping[str, Callable[[TextRequest], Any]] = {
    "n": lambda r: r.n,
    "best_of": lambda r: r.best_of,
    "max_tokens": lambda r: r.limits.max_tokens,
    "min_tokens": lambda r: r.limits.min_tokens or None,
    "ignore_eos": lambda r: r.limits.ignore_eos or None,
    "stop": lambda r: len(r.limits.stop) or None,
    "temperature": lambda r: r.sampling.temperature,
    "top_p": lambda r: r.sampling.top_p,
    "top_k": lambda r: r.sampling.top_k,
    "seed": lambda r: r.sampling.seed,
    "presence_penalty": lambda r: r.sampling.presence_penalty,
    "frequency_penalty": lambda r: r.sampling.frequency_penalty,
    "repetition_penalty": lambda r: r.sampling.repetition_penalty,
    "log_probs": lambda r: r.log_probs,
    "guide": lambda r: r.guide.kind if r.guide else None,
    "tools": lambda r: len(r.tools.tools) if r.tools else None,
}
"""What a request asks for → how it is read; of texts only how many there are."""


class Recorder(LineFile):
    """Raises OSError when the file can't be written, OutputError for one that is no recording."""

    def __init__(self, path: Path, config: ServerConfig) -> None:
        began = begun(path)
        self._began = config.began if began is None else began
        super().__init__(path, what="recording", mode=0o600, max_bytes=config.record_max_bytes)
        self._secret = config.secret
        self._has_content = config.record_content

    def record(self, exchange: Exchange, entry: Mapping[str, Any]) -> None:
        """Record a request that is over, soon; `entry` is the access log's. Never raises, never
        waits."""
        told: dict[str, Any] = {name: entry.get(name) for name in _TOLD} | exchange.recorded
        line = {"timestamp": max(0.0, round((exchange.began - self._began) * 1e3, 3))}
        if "asked" in told:
            # a load generator can't ask for none, of which a failed request has got
            line["output_length"] = max(1, told["completion_tokens"])
        if self._has_content:
            content: Callable[[], dict[str, Any]] = partial(_payload, exchange.body)
            held_bytes = len(exchange.body)
        else:
            content = partial(_lengths, exchange.prompts, self._secret)
            held_bytes = sum(map(len, exchange.prompts)) * _HELD_TOKEN_BYTES
        self.write(partial(_line, line, content, told), held_bytes + _LINE_BYTES)


def begun(path: Path) -> float | None:
    """When the recording in the file began, in seconds since 1970; None where there is none yet.

    Raises OutputError for a file that is something else, OSError.
    """
    if not path.exists():
        return None
    other = OutputError(f"{path} is no recording to go on with", do="choose another --record")
    if not path.is_file():
        raise other
    with path.open("rb") as file:
        first = file.readline()
    if not first:
        return None
    try:
        line = json.loads(first)
        arrived = datetime.fromisoformat(line["trtbuild"]["time"].replace("Z", "+00:00"))
        return arrived.timestamp() - float(line["timestamp"]) / 1e3
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise other from error


def asked(request: TextRequest) -> dict[str, Any]:
    """What the client asked for, without any text of it."""
    found = {name: read(request) for name, read in _ASKED.items()}
    return {name: value for name, value in found.items() if value is not None}


def hashes(ids: Iterable[int], secret: bytes) -> list[int]:
    """Of the tokens up to the end of each block, the last of which may be shorter."""
    tokens, size = array("I", ids).tobytes(), BLOCK_TOKENS * _TOKEN_BYTES
    hasher, found = blake2b(key=secret, digest_size=_HASH_BYTES), []
    for at in range(0, len(tokens), size):
        hasher.update(tokens[at : at + size])
        found.append(int.from_bytes(hasher.digest(), "little") >> (8 * _HASH_BYTES - _ID_BITS))
    return found


def _line(
    line: Mapping[str, Any], content: Callable[[], dict[str, Any]], told: Mapping[str, Any]
) -> bytes:
    own = {name: value for name, value in told.items() if value is not None}
    return encoded({**line, **content(), "trtbuild": own}) + b"\n"


def _lengths(prompts: Sequence[Sequence[int]], secret: bytes) -> dict[str, Any]:
    ids = list(chain.from_iterable(prompts))
    return {"input_length": len(ids), "hash_ids": hashes(ids, secret)}


def _payload(body: bytes) -> dict[str, Any]:
    """As it came, but in one line: JSON has line breaks only where a space means the same."""
    text = body.decode(errors="replace")  # fields that nobody reads may hold anything
    return {"payload": msgspec.Raw(text.replace("\r", " ").replace("\n", " ").encode())}
