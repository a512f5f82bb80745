"""Token ids to text, one by one, so that the pieces joined are the whole decoded at once.

Decoding each token alone loses spaces and breaks characters that span tokens. So a token is
looked up as the bytes that it adds, and bytes become text where a character is complete.
Byte-level BPE and SentencePiece-style decoders have such bytes; for any other decoder, whose
tokens depend on their neighbours, a short window is decoded again.
"""

from __future__ import annotations

import json
from codecs import utf_8_decode
from collections.abc import Sequence
from typing import Protocol

from tokenizers import Tokenizer

from text.token_pieces import Known, KnownTexts, Piece, Pieces, pieces_of

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MAX_HELD_TOKENS = 16
_CONTEXT_TOKENS = 8


class Detokenizer(Protocol):
    """The text of one growing token sequence."""

    def feed(self, token: int) -> str:
        """The text that this token completes; an unfinished character is held back."""
        ...

    def feed_all(self, tokens: Sequence[int]) -> str:
        """The same for several tokens, in one step."""
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
        self._visible: dict[frozenset[int], Visible] = {}

    def detokenizer(
        self,
        *,
        skip_special_tokens: bool,
        after: Sequence[int] = (),
        shown: frozenset[int] = frozenset(),
    ) -> Detokenizer:
        """A fresh detokenizer for one answer.

        `after` is what the answer goes on from: decoders treat a text's very first token apart.
        Of the special tokens that are skipped, those in `shown` are not.
        """
        hidden = self._special if skip_special_tokens else frozenset[int]()
        if shown:
            hidden -= shown
        before = [token for token in after[-_CONTEXT_TOKENS:] if token not in hidden]
        if self._pieces is None:
            return WindowDetokenizer(self._tokenizer, hidden, before)
        visible = self._visible.get(hidden)
        if visible is None:
            visible = self._visible[hidden] = Visible(self._pieces, hidden)
        return BytesDetokenizer(visible, at_start=not before)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one token adds to a text, possibly part of a character."""
        if self._pieces is None:
            text: str = self._tokenizer.decode([token], skip_special_tokens=False)
            return text.encode()
        return self._pieces.later(token)


class Visible:
    """What tokens add to a text, where those in `hidden` add nothing."""

    def __init__(self, pieces: Pieces, hidden: frozenset[int]) -> None:
        self.hidden, self.first = hidden, pieces.first
        shown = pieces.later
        self.later: Piece = Known(
            lambda token: b"" if token in hidden else shown(token)
        ).__getitem__
        self.text = KnownTexts(self.later).__getitem__


class BytesDetokenizer:
    """For decoders under which a token is a fixed run of bytes, wherever it stands."""

    __slots__ = ("_later", "_rest", "_starts", "_text", "_visible")

    def __init__(self, visible: Visible, *, at_start: bool) -> None:
        self._visible, self._later, self._text = visible, visible.later, visible.text
        self._starts = at_start
        self._rest = b""

    def feed(self, token: int) -> str:
        """The text that this token completes."""
        if self._starts:
            return self._start((token,))
        if not self._rest and (text := self._text(token)) is not None:
            return text
        return self._decode(self._later(token))

    def feed_all(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete."""
        if self._starts:
            return self._start(tokens)
        return self._decode(b"".join(map(self._later, tokens)))

    def flush(self) -> str:
        """U+FFFD where a character was left unfinished."""
        rest, self._rest = self._rest, b""
        return rest.decode(errors="replace")

    def _start(self, tokens: Sequence[int]) -> str:
        """The first token that shows anything is taken apart."""
        shown = [token for token in tokens if token not in self._visible.hidden]
        if not shown:
            return ""
        self._starts = False
        return self._decode(self._visible.first(shown[0]) + b"".join(map(self._later, shown[1:])))

    def _decode(self, more: bytes) -> str:
        content = self._rest + more
        text, read = utf_8_decode(content, "replace", False)
        self._rest = content[read:]
        return text


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

    def feed_all(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete."""
        return "".join(map(self.feed, tokens))

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
