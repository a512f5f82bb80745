"""The bytes that each token adds to a text, for decoders under which they are fixed.

Byte-level BPE spells bytes out; SentencePiece-style decoders treat each token alone, but for
the text's first. Found on demand and kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


Piece = Callable[[int], bytes]
"""The bytes that a token adds."""


class Pieces(Protocol):
    """The bytes that a token adds, at the start of a text and later in it."""

    @property
    def first(self) -> Piece: ...

    @property
    def later(self) -> Piece: ...


class Known(dict[int, bytes]):
    """What was found once: looking up a known token runs no Python code."""

    def __init__(self, find: Piece) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, token: int) -> bytes:
        found = self[token] = self._find(token)
        return found


class KnownTexts(dict[int, str | None]):
    """The same as text: None for what is part of a character."""

    def __init__(self, piece: Piece) -> None:
        super().__init__()
        self._piece = piece

    def __missing__(self, token: int) -> str | None:
        try:
            found: str | None = self._piece(token).decode()
        except UnicodeDecodeError:
            found = None
        self[token] = found
        return found


def pieces_of(
    tokenizer: Tokenizer, decoder: dict[str, Any] | None, special: frozenset[int]
) -> Pieces | None:
    """The table for this kind of decoder, None where tokens depend on their neighbours."""
    steps = _decoder_steps(decoder)
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return _ByteLevelPieces(tokenizer)
    anchor = _plain_token(tokenizer, special)
    if not steps or anchor is None or not all(_is_local(step) for step in steps):
        return None
    byte_fallback = any(step["type"] == "ByteFallback" for step in steps)
    return _AnchoredPieces(tokenizer, anchor, byte_fallback=byte_fallback)


class _ByteLevelPieces:
    """Byte-level BPE: each character of a token stands for one byte."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.first = self.later = Known(self._find).__getitem__

    def _find(self, token: int) -> bytes:
        name = self._tokenizer.id_to_token(token) or ""
        try:
            return bytes(_BYTE_OF_CHARACTER[character] for character in name)
        except KeyError:  # an added token, written in plain text
            return name.encode()


class _AnchoredPieces:
    """Decoders that treat each token alone, but for the text's first: asked beside an anchor."""

    def __init__(self, tokenizer: Tokenizer, anchor: int, *, byte_fallback: bool) -> None:
        self._tokenizer, self._anchor, self._byte_fallback = tokenizer, anchor, byte_fallback
        self._anchor_text = self._text([anchor])
        self.first = Known(self._find_first).__getitem__
        self.later = Known(self._find_later).__getitem__

    def _find_first(self, token: int) -> bytes:
        text = self._text([token])
        byte = self._byte(token)
        return byte if byte and text else text.encode()

    def _find_later(self, token: int) -> bytes:
        text = self._text([self._anchor, token])
        return self._byte(token) or text[len(self._anchor_text) :].encode()

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def _byte(self, token: int) -> bytes:
        name = self._tokenizer.id_to_token(token) if self._byte_fallback else None
        match = _BYTE_TOKEN.fullmatch(name) if name else None
        return bytes([int(match[1], 16)]) if match else b""


def _decoder_steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [step for inner in decoder["decoders"] for step in _decoder_steps(inner)]
    return [decoder]


def _is_local(step: dict[str, Any]) -> bool:
    """Whether a decoder step looks at one token, or only at the text's very start."""
    if step["type"] == "Replace":
        return len(step["pattern"].get("String", "")) == 1
    if step["type"] == "Strip":
        return bool(step["start"] <= 1 and step["stop"] == 0)
    return step["type"] in {"ByteFallback", "Fuse", "Metaspace"}


def _plain_token(tokenizer: Tokenizer, special: frozenset[int]) -> int | None:
    """An ordinary token of plain letters."""
    vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=False).items(), key=lambda x: x[1])
    return next(
        (i for name, i in vocabulary if name.isascii() and name.isalpha() and i not in special),
        None,
    )


def _byte_characters() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_characters()
