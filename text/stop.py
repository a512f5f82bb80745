"""Stop strings, matched on text: tokens can't be trusted to fall on a stop string's edges."""

from __future__ import annotations

import re
from collections.abc import Sequence


class StopMatcher:
    """Lets text through until a stop string appears, however the text is cut into pieces.

    The first stop string to be complete wins, and of several that end together the longest:
    that is where the model would have been halted. Text that may yet turn out to begin a stop
    string is held back.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        self._stops = tuple(stops)
        self._include_stop = include_stop
        firsts = "".join({re.escape(stop[0]) for stop in self._stops})
        self._first = re.compile(f"[{firsts}]").search if firsts else None
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that may be shown now. Nothing more is shown after a match."""
        if self.matched is not None:
            return ""
        if self._first is None or not (self._held or self._first(text)):
            return text
        text = self._held + text
        found = self._find(text)
        if found is not None:
            start, end = found
            self._held, self.matched = "", text[start:end]
            return text[: end if self._include_stop else start]
        keep = self._could_begin(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _find(self, text: str) -> tuple[int, int] | None:
        starts = ((text.find(stop), len(stop)) for stop in self._stops)
        spans = [(at, at + length) for at, length in starts if at >= 0]
        return min(spans, key=lambda span: (span[1], span[0]), default=None)

    def _could_begin(self, text: str) -> int:
        return max(_overlap(text, stop) for stop in self._stops)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    first = stop[0]
    at = text.find(first, max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(first, at + 1)
    return 0
