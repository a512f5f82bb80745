"""Protocol buffers' wire format, as much of it as Triton's few messages need.

Written out here because a request's message is made once and a response's read thousands of times
a second, and because importing protobuf and Triton's client takes half a second.
Source: protobuf.dev, "Encoding"; the messages are those of the KServe `grpc_service.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Span = tuple[int, int]
"""Where a field's bytes begin and end in a message."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class MalformedError(ValueError):
    """The bytes are no message."""


def varint(value: int) -> bytes:
    """A number; negative ones as 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def flag(number: int, value: bool) -> bytes:
    """A BOOL field."""
    return varint(number << 3) + (b"\1" if value else b"\0")


def tensor(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """An InferInputTensor's description, without its values."""
    dims = b"".join(map(varint, shape))
    return field(1, name.encode()) + field(2, datatype.encode()) + field(3, dims)


def fields(data: bytes, span: Span) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: each one's number, and what it is, or where its bytes are.

    Raises MalformedError.
    """
    at, end = span
    while at < end:
        key, at = _read_varint(data, at, end)
        kind = key & 7
        value = 0
        if kind == _VARINT:
            value, stop = _read_varint(data, at, end)
        elif kind == _BYTES:
            size, at = _read_varint(data, at, end)
            stop = at + size
        elif kind in (_FIXED64, _FIXED32):
            stop = at + (8 if kind == _FIXED64 else 4)
        else:
            raise MalformedError(f"a field of wire type {kind}")
        if stop > end:
            raise MalformedError("a field goes on after its message")
        yield key >> 3, (at, stop) if kind != _VARINT else value
        at = stop


def numbers(data: bytes, found: int | Span) -> Sequence[int]:
    """Whole numbers of a repeated field, packed or one. Raises MalformedError."""
    if isinstance(found, int):
        return (found,)
    at, end = found
    out: list[int] = []
    while at < end:
        value, at = _read_varint(data, at, end)
        out.append(value if value < 1 << 63 else value - (1 << 64))
    return out


def text(data: bytes, found: int | Span) -> str:
    """A text field's value. Raises MalformedError."""
    start, end = span_of(found)
    return data[start:end].decode("utf-8", "replace")


def span_of(found: int | Span) -> Span:
    """Where a field's bytes are. Raises MalformedError where it is a number."""
    if isinstance(found, int):
        raise MalformedError("a number in the place of bytes")
    return found


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise MalformedError("a number without an end")
