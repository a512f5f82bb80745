"""Token ids to text, one by one, so that the pieces joined are the whole decoded at once.

Decoding each token alone loses spaces and breaks characters that span tokens. So a token is
looked up as the bytes that it adds, and bytes become text where a character is complete.
Byte-level BPE and SentencePiece-style decoders have such bytes; for any other decoder, whose
tokens depend on their neighbours, a short window is decoded again.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from typing import Protocol

from tokenizers import Tokenizer

from text.token_pieces import Pieces, pieces_of

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MAX_HELD_TOKENS = 16
_CONTEXT_TOKENS = 8


class Detokenizer(Protocol):
    """The text of one growing token sequence."""

    def feed(self, token: int) -> str:
        """The text that this token completes; an unfinished character is held back."""
        ...

    def flush(self) -> str:
        """What is still held back, when no more tokens come."""
        ...


class TokenTable:
    """What every detokenizer of one tokenizer shares."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        document = json.loads(tokenizer.to_str())
        self._tokenizer = tokenizer
        self._special = frozenset(t["id"] for t in document["added_tokens"] if t["special"])
        self._pieces = pieces_of(tokenizer, document.get("decoder"), self._special)

    def detokenizer(self, *, skip_special_tokens: bool, after: Sequence[int] = ()) -> Detokenizer:
        """A fresh detokenizer for one answer.

        `after` is what the answer goes on from: decoders treat a text's very first token apart.
        """
        hidden = self._special if skip_special_tokens else frozenset[int]()
        before = [token for token in after[-_CONTEXT_TOKENS:] if token not in hidden]
        if self._pieces is None:
            return WindowDetokenizer(self._tokenizer, hidden, before)
        return BytesDetokenizer(self._pieces, hidden, at_start=not before)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one token adds to a text, possibly part of a character."""
        if self._pieces is None:
            text: str = self._tokenizer.decode([token], skip_special_tokens=False)
            return text.encode()
        return self._pieces.later(token)


class BytesDetokenizer:
    """For decoders under which a token is a fixed run of bytes, wherever it stands."""

    def __init__(self, pieces: Pieces, hidden: frozenset[int], *, at_start: bool) -> None:
        self._pieces, self._hidden = pieces, hidden
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._first = at_start

    def feed(self, token: int) -> str:
        """The text that this token completes."""
        if token in self._hidden:
            return ""
        if self._first:
            self._first = False
            return self._decode(self._pieces.first(token))
        return self._decode(self._pieces.later(token))

    def flush(self) -> str:
        """U+FFFD where a character was left unfinished."""
        return self._decode(b"", True)


class WindowDetokenizer:
    """For any decoder: the last few tokens are decoded with and without the new one."""

    def __init__(self, tokenizer: Tokenizer, hidden: frozenset[int], before: Sequence[int]) -> None:
        self._tokenizer, self._hidden = tokenizer, hidden
        self._window = list(before)
        self._shown = len(before)
        self._shown_text = self._text()

    def feed(self, token: int) -> str:
        """The text that this token completes."""
        if token in self._hidden:
            return ""
        self._window.append(token)
        text = self._text()
        held = len(self._window) - self._shown
        if text.endswith(_REPLACEMENT) and held < _MAX_HELD_TOKENS:
            return ""
        return self._show(text)

    def flush(self) -> str:
        """The rest, unfinished characters as U+FFFD."""
        return self._show(self._text())

    def _text(self) -> str:
        text: str = self._tokenizer.decode(self._window, skip_special_tokens=False)
        return text

    def _show(self, text: str) -> str:
        new = text[len(self._shown_text) :]
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        self._shown_text = self._text()
        return new
