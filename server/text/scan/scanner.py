"""A generator's view of text that is still coming, and where it puts what it has read.

A reader is a generator that yields where it must know more. It decides by the text alone, never by
where a piece of it ends, so any cut of the same text gives the same parts in sum.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from server.text.scan.markers import Coming, Markers, is_cut
from server.text.scan.telling import IdStyle, Telling

T = TypeVar("T")
Scan = Generator[None, None, T]
"""A reader: yields to wait for text, returns what it found."""

SPACE = " \t\r\n"
_MAX_HELD_SPACE = 64
"""Of the space before a marker, which isn't shown: so many characters can turn out to be it."""


class Scanner(Telling):
    """The text from `at` on, and the parts that were made of what came before.

    What lies between `hold` and `settle` is shown only when no call came of it. `ended` is set
    when no more text comes, `cut` when that is because it was cut short.
    """

    def __init__(
        self,
        ids: IdStyle = "openai",
        *,
        most_calls: int | None = None,
        earlier_ids: Sequence[str] = (),
    ) -> None:
        super().__init__(ids, most_calls=most_calls, earlier_ids=earlier_ids)
        self.text, self.at, self.ended, self.cut = "", 0, False, False
        self._held: list[str] | None = None
        """What was held of text that is gone; `_held_at` is where the rest of it begins."""
        self._held_at = self._held_chars = 0
        self._coming: list[str] | None = None
        """Text that a reader doesn't want to look at yet."""
        self._coming_chars = 0

    @property
    def held_chars(self) -> int:
        """How much has come that nobody has made anything of yet."""
        held = 0 if self._held is None else self._held_chars + self.at - self._held_at
        return held + len(self.text) - self.at + self._coming_chars

    def add(self, text: str) -> None:
        """Take new text, and forget what nobody needs any more."""
        if self._coming is not None:
            self._coming.append(text)
            self._coming_chars += len(text)
            return
        if self._held is not None:
            self._held.append(self.text[self._held_at : self.at])
            self._held_at, self._held_chars = 0, self._held_chars + self.at - self._held_at
        self.text, self.at = self.text[self.at :] + text, 0

    # What readers say

    def call(self, name: str, call_id: str | None = None) -> None:
        """A call of `name` begins; what was held is part of it."""
        self.begin_call(name, call_id, self._release())

    def hold(self) -> None:
        """What comes from here on may be a call, or no text to show."""
        self._held, self._held_at, self._held_chars = [], self.at, 0

    def drop(self) -> None:
        """What was held is a marker."""
        self._held = None

    def settle(self) -> None:
        """What is still held, up to here, is text after all."""
        if self._held is not None:
            self.show(self._release())

    def settle_call(self) -> None:
        """The same where a call was read, or begun: the answer's end in the midst is no text.

        A reader that had all the text it asked for has given up before that end.
        """
        if self.cut:
            self.at = len(self.text)
            self.drop()
        self.settle()

    def _release(self) -> str:
        if self._held is None:
            return ""
        held, self._held = [*self._held, self.text[self._held_at : self.at]], None
        return "".join(held)

    # What readers ask

    def more(self, is_enough: Callable[[str], bool] | None = None) -> Scan[bool]:
        """Wait for more text; False when there is none.

        `is_enough` sees each piece as it comes, and says whether to look at all that has come.
        """
        if self.ended:
            return False
        if is_enough is None:
            yield
            return True
        coming = self._coming = []
        yield
        while not (self.ended or is_enough(coming[-1])):
            yield
        self._coming, self._coming_chars = None, 0
        self.add("".join(coming))
        return True

    def peek(self) -> Scan[str]:
        """The character at `at`, '' at the end."""
        while self.at == len(self.text):
            if not (yield from self.more()):
                return ""
        return self.text[self.at]

    def after_space(self) -> Scan[str]:
        """Go past space; the character there, '' at the end."""
        while (found := (yield from self.peek())) and found in SPACE:
            self.at += 1
        return found

    def literal(self, *texts: str) -> Scan[bool]:
        """Go past whichever of `texts` stands at `at`; False where none does."""
        while True:
            for text in texts:
                if self.text.startswith(text, self.at):
                    self.at += len(text)
                    return True
            rest = self.text[self.at : self.at + max(map(len, texts))]
            if not any(text.startswith(rest) for text in texts):
                return False
            if not (yield from self.more()):
                return False

    def closing(self, *texts: str) -> Scan[None]:
        """Go past a little space and one of `texts` behind it, if it stands there; else stay."""
        while texts:
            rest = self.text[self.at : self.at + _MAX_HELD_SPACE + max(map(len, texts))]
            bare = rest.lstrip(SPACE)
            space = len(rest) - len(bare)
            found = next((text for text in texts if bare.startswith(text)), None)
            if found is not None and space <= _MAX_HELD_SPACE:
                self.at += space + len(found)
                self.drop()
                return
            if space > _MAX_HELD_SPACE or not any(text.startswith(bare) for text in texts):
                return
            if not (yield from self.more()):
                if self.cut:
                    self.at = len(self.text)
                    self.drop()
                return

    def within(self, end: str, most_chars: int) -> Scan[str | None]:
        """The text before `end`, gone past with it; None where it doesn't come soon."""
        while True:
            limit = self.at + most_chars + len(end)
            stop = self.text.find(end, self.at, limit)
            if stop >= 0:
                found, self.at = self.text[self.at : stop], stop + len(end)
                return found
            come = Coming(end, self.text[self.at :], limit - len(self.text))
            if come.room <= 0 or not (yield from self.more(come)):
                return None

    def until(self, markers: Markers) -> Scan[str]:
        """Show text up to a marker, hold it with the space before it; '' at the end of all.

        `at` is left behind the marker.
        """
        while True:
            found = markers.find(self.text, self.at)
            stop = found.start if found else len(self.text)
            shown = self.text[self.at : stop]
            space = min(len(shown) - len(shown.rstrip()), _MAX_HELD_SPACE)
            self.show(shown[: len(shown) - space])
            self.at = stop - space
            if found and found.whole:
                self.hold()
                self.at = found.end
                return self.text[found.start : found.end]
            if self.ended:
                if not (self.cut and found and is_cut(self.text[found.start :])):
                    self.show(self.text[self.at :])
                self.at = len(self.text)
                return ""
            yield


def run(reader: Scan[None]) -> bool:
    """Let a reader go on; False when it has finished."""
    return next(reader, _DONE) is None


_DONE = object()
