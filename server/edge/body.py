"""A request's body: bounded, whole, and checked before anything parses it."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from server.edge.call import Call, call_of
from server.errors import (
    BodyTooLargeError,
    InvalidRequestError,
    MediaTypeError,
    OverloadedError,
)

_JSON_TYPES = ("application/json", "")
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_QUOTE = ord('"')
_PIECE_BYTES = 1 << 20
_MAX_SHOWN_CHARS = 40


class BodyRoom:
    """What all bodies may take together, from their first byte until their answers have ended."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0

    def take(self, call: Call, size_bytes: int) -> None:
        """More of a call's body has come. Raises OverloadedError where that is too much."""
        if self.held_bytes + size_bytes > self._max_bytes:
            raise OverloadedError("The server is busy: it holds too many large requests")
        self.held_bytes += size_bytes
        call.body_bytes += size_bytes

    def give(self, call: Call) -> None:
        """The call is over."""
        self.held_bytes -= call.body_bytes
        call.body_bytes = 0


async def read_body(request: Request, max_bytes: int, room: BodyRoom) -> bytes:
    """The body, of at most `max_bytes`, for which there is `room`.

    Raises BodyTooLargeError as soon as it is known to be larger, MediaTypeError when it says that
    it is compressed or no JSON, OverloadedError, starlette's ClientDisconnect.
    """
    call = call_of(request.scope)
    headers = request.headers
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        shown = encoding[:_MAX_SHOWN_CHARS]
        raise MediaTypeError(
            f"a body of Content-Encoding '{shown}' can't be read", do="send it as it is"
        )
    _check_type(headers.get("content-type", ""))
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    pieces = []
    async for piece in request.stream():
        room.take(call, len(piece))
        if call.body_bytes > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
    return b"".join(pieces)


async def check_nesting(body: bytes, deepest: int) -> None:
    """Raise InvalidRequestError when JSON's arrays and objects lie deeper in one another.

    What is no JSON may pass. Most bodies haven't as many brackets in all; large ones that have are
    looked at on another thread.
    """
    if body.count(b"[") + body.count(b"{") <= deepest:
        return
    large = len(body) > _PIECE_BYTES
    if (await asyncio.to_thread(depth_of, body) if large else depth_of(body)) > deepest:
        raise InvalidRequestError(f"the body's arrays and objects lie more than {deepest} deep")


def depth_of(body: bytes) -> int:
    """How deep brackets lie in one another, those in strings aside."""
    import numpy as np

    steps = np.zeros(256, np.int8)
    steps[list(b"[{")], steps[list(b"]}")] = 1, -1
    # without escapes every quote begins or ends a string
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_STRUCTURE)
    deepest = depth = quotes = 0
    for start in range(0, len(plain), _PIECE_BYTES):
        piece = np.frombuffer(plain, np.uint8, min(_PIECE_BYTES, len(plain) - start), start)
        # modulo 256, which is even
        in_string = (np.cumsum(piece == _QUOTE, dtype=np.uint8) + np.uint8(quotes)) & 1
        depths = np.cumsum(np.where(in_string, 0, steps[piece]), dtype=np.int32) + depth
        deepest, depth, quotes = max(deepest, int(depths.max())), int(depths[-1]), in_string[-1]
    return deepest


def _check_type(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        shown = content_type[:_MAX_SHOWN_CHARS]
        raise MediaTypeError(
            f"Unsupported content type: '{shown}'", do="send JSON as application/json"
        )


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than the maximum of {max_bytes} bytes")
