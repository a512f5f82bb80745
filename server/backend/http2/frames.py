"""HTTP/2 frames (RFC 9113): the constants, how they are laid out, and how they are written."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = range(4, 9)
COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = range(9, 13)

DEFAULT_WINDOW_BYTES: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
MOST_FRAME_BYTES: Final = (1 << 24) - 1
MOST_WINDOW_BYTES: Final = (1 << 31) - 1

HEAD: Final = struct.Struct(">HBBBL")
"""A frame's head: the length's two upper bytes and its lowest, type, flags, stream."""
_SETTING: Final = struct.Struct(">HL")


class ProtocolError(Exception):
    """The peer broke the protocol: `code` is HTTP/2's error code for the connection's end."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def headers(stream: int, block: bytes, *, frame_bytes: int) -> bytes:
    """A header block, in as many frames as it needs."""
    parts = [block[at : at + frame_bytes] for at in range(0, len(block), frame_bytes)] or [b""]
    last = len(parts) - 1
    return b"".join(
        frame(HEADERS if at == 0 else CONTINUATION, END_HEADERS if at == last else 0, stream, part)
        for at, part in enumerate(parts)
    )


def settings(values: Mapping[int, int]) -> bytes:
    """Our settings."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The peer's settings. Raises ProtocolError."""
    if len(payload) % 6:
        raise ProtocolError(FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, size_bytes: int) -> bytes:
    """So many bytes more may be sent to us; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, size_bytes.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    """The stream is over, whatever it was doing."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(code: int, why: str = "") -> bytes:
    """The connection is over; we never took a stream of the peer's."""
    return frame(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big") + why.encode()[:256])


def number(payload: bytes, what: str) -> int:
    """The one 32-bit number that some frames are. Raises ProtocolError."""
    if len(payload) != 4:
        raise ProtocolError(FRAME_SIZE_ERROR, f"{what} of {len(payload)} bytes")
    return int.from_bytes(payload, "big")


def unpadded(flags: int, payload: bytes) -> bytes:
    """A payload of DATA or HEADERS without its padding and priority. Raises ProtocolError."""
    padding = start = 0
    if flags & PADDED:
        if not payload:
            raise ProtocolError(FRAME_SIZE_ERROR, "a padded frame without its padding's length")
        padding, start = payload[0], 1
    end = len(payload) - padding
    if flags & PRIORITISED:
        start += 5
    if end < start:
        raise ProtocolError(PROTOCOL_ERROR, "padding longer than its frame")
    return payload[start:end]
