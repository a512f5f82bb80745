"""JSON read as it comes: passed on as it was written, and no further than its end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from server.text.scan.scanner import SPACE, Scan, Scanner


class Language:
    """How a notation quotes its strings and nests its values."""

    def __init__(self, quotes: str, brackets: str) -> None:
        self.quotes = quotes
        outside = {"": re.compile(f"[^{re.escape(quotes + brackets)}]*")}
        self.plain = outside | {quote: re.compile(rf"[^\\{quote}]*") for quote in quotes}


JSON = Language('"', "[]{}")
PYTHON = Language("\"'", "()[]{}")

Emit = Callable[[str], object]

_INSIDE = re.compile(r'(?:[^"\\\x00-\x1f]+|\\.)*', re.DOTALL)
_SCALAR_ENDS = frozenset(f"{SPACE},]}}")


def text(scanner: Scanner) -> Scan[str | None]:
    """The JSON string at `at`, decoded; None, somewhere in it, where it isn't one."""
    raw = yield from _string(scanner)
    try:
        return None if raw is None else str(json.loads(raw))
    except ValueError:
        return None


def value(scanner: Scanner, emit: Emit) -> Scan[bool]:
    """Pass the JSON value at `at` to `emit`, in pieces; False where its end doesn't come.

    Brackets and strings are matched, no more: what is in them is its reader's matter.
    """
    first = yield from scanner.peek()
    if first and first in "[{":
        return (yield from _container(scanner, emit))
    if first == '"':
        raw = yield from _string(scanner)
        emit(raw or "")
        return raw is not None
    read = False
    while (letter := (yield from scanner.peek())) and letter not in _SCALAR_ENDS:
        emit(letter)
        scanner.at += 1
        read = True
    return read


def _string(scanner: Scanner) -> Scan[str | None]:
    if (yield from scanner.peek()) != '"':
        return None
    size = 1
    while True:
        match = _INSIDE.match(scanner.text, scanner.at + size)
        size = match.end() - scanner.at if match else size
        letter = scanner.text[scanner.at + size : scanner.at + size + 1]
        if letter == '"':
            raw = scanner.text[scanner.at : scanner.at + size + 1]
            scanner.at += size + 1
            return raw
        if letter not in ("", "\\") or not (yield from scanner.more(_Closing(letter))):
            scanner.at += size
            return None


class _Closing:
    """Whether a string's end has come, or what can't be in one; `begun` may be a backslash."""

    def __init__(self, begun: str) -> None:
        self._begun = begun

    def __call__(self, piece: str) -> bool:
        text = self._begun + piece
        match = _INSIDE.match(text)
        self._begun = text[match.end() :] if match else text
        return self._begun not in ("", "\\")


def _container(scanner: Scanner, emit: Emit) -> Scan[bool]:
    return (yield from nested(scanner, emit, JSON))


def nested(scanner: Scanner, emit: Emit, language: Language) -> Scan[bool]:
    """Pass what is in the bracket at `at` to `emit`, both brackets with it, as `value` does."""
    state = _Nesting(language)
    while True:
        at = scanner.at
        scanner.at = state.end(scanner.text, at)
        emit(scanner.text[at : scanner.at])
        if not state.depth:
            return True
        if not (yield from scanner.more()):
            emit(scanner.text[scanner.at :])
            scanner.at = len(scanner.text)
            return False


class _Nesting:
    """How deep in brackets, and in which quotes, the text is."""

    def __init__(self, language: Language) -> None:
        self.depth = 0
        self._language = language
        self._quote = ""

    def end(self, text: str, at: int) -> int:
        """Where the outermost bracket closes behind, else how far the text is understood."""
        while at < len(text):
            match = self._language.plain[self._quote].match(text, at)
            at = match.end() if match else at
            letter = text[at : at + 1]
            if not letter or (letter == "\\" and at + 1 == len(text)):
                return at
            at += 2 if letter == "\\" else 1
            self._take(letter)
            if not self.depth:
                return at
        return at

    def _take(self, letter: str) -> None:
        if letter in self._language.quotes:
            self._quote = "" if self._quote else letter
        elif letter in "([{":
            self.depth += 1
        elif letter != "\\":
            self.depth -= 1
