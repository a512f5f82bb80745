"""How many values a JSON document has: what makes reading it long, and its objects large."""

from __future__ import annotations

from typing import Final

from server.errors import InvalidRequestError

MAX_VALUES: Final = 512 * 1024
"""In one body. They are read in one go, in which no other request is served: 0.1 s at most."""
_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'[{,"'))
_QUOTE: Final = ord('"')


def check_values(body: bytes, most: int = MAX_VALUES) -> None:
    """Raise InvalidRequestError for more than about `most` values. What is no JSON may pass."""
    # each value but the first comes after one of three characters, which texts have too
    if len(body) <= most or sum(map(body.count, (b",", b"[", b"{"))) <= most:
        return
    if _values(body) > most:
        raise InvalidRequestError(f"the body has more than {most} values")


def _values(body: bytes) -> int:
    """How many commas and opening brackets there are, those in strings aside."""
    import numpy as np

    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_STRUCTURE)
    found = np.frombuffer(plain, np.uint8)
    quotes = found == _QUOTE
    in_string = np.cumsum(quotes, dtype=np.uint8) & 1  # modulo 256, which is even
    return int(np.count_nonzero((in_string == 0) & ~quotes))
