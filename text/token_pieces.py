"""The bytes that each token adds to a text, for decoders under which they are fixed.

Byte-level BPE spells bytes out; SentencePiece-style decoders treat each token alone, but for
the text's first. Found on demand and kept.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Pieces(Protocol):
    """The bytes that a token adds, at the start of a text and later in it."""

    def first(self, token: int) -> bytes: ...

    def later(self, token: int) -> bytes: ...


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
        self._bytes: dict[int, bytes] = {}
        self.first = self.later

    def later(self, token: int) -> bytes:
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._look_up(token)
        return known

    def _look_up(self, token: int) -> bytes:
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
        self._first: dict[int, bytes] = {}
        self._later: dict[int, bytes] = {}

    def first(self, token: int) -> bytes:
        known = self._first.get(token)
        if known is None:
            text = self._text([token])
            byte = self._byte(token)
            known = self._first[token] = byte if byte and text else text.encode()
        return known

    def later(self, token: int) -> bytes:
        known = self._later.get(token)
        if known is None:
            text = self._text([self._anchor, token])
            known = self._byte(token) or text[len(self._anchor_text) :].encode()
            self._later[token] = known
        return known

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
