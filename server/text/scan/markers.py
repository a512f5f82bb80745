"""Finding markers in text of which the rest is still to come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple


class Found(NamedTuple):
    """Where a marker begins and ends; `whole` False: the text ends before the marker may."""

    start: int
    end: int
    whole: bool


def is_cut(text: str) -> bool:
    """Whether the beginning of a marker is one that was cut short, rather than other text.

    Words begin many a sentence, and `<` or `</` many a thing.
    """
    return len(text) > _MOST_OF_OTHER_TEXT and not text[0].isalnum()


_MOST_OF_OTHER_TEXT = 2


class Markers:
    """A set of markers, none of which begins another."""

    def __init__(self, texts: Sequence[str]) -> None:
        whole = "|".join(re.escape(text) for text in texts)
        begun = "|".join(_beginnings(text) for text in texts)
        self._pattern = re.compile(rf"({whole})|(?:{begun})\Z") if texts else None

    def find(self, text: str, at: int) -> Found | None:
        """The first marker in `text` from `at` on, or what may begin one at its end."""
        match = self._pattern.search(text, at) if self._pattern else None
        if match is None:
            return None
        return Found(match.start(), match.end(), match[1] is not None)


class Coming:
    """Whether `end` has come, behind text that doesn't have it, or more than `room` characters."""

    def __init__(self, end: str, before: str, room: int) -> None:
        self._end, self.room = end, room
        self._seen = before

    def __call__(self, piece: str) -> bool:
        keep = len(self._end) - 1
        self._seen = self._seen[max(0, len(self._seen) - keep) :] + piece
        self.room -= len(piece)
        return self.room <= 0 or self._end in self._seen


@lru_cache(maxsize=64)
def markers(*texts: str) -> Markers:
    """The set of these markers, made once."""
    return Markers(texts)


def _beginnings(text: str) -> str:
    """A pattern of every beginning of `text` but the empty one and the whole: `a(?:b(?:c)?)?`."""
    letters = [re.escape(letter) for letter in text[:-1]]
    pattern = ""
    for letter in reversed(letters[1:]):
        pattern = f"(?:{letter}{pattern})?"
    return letters[0] + pattern if letters else r"(?!)"
