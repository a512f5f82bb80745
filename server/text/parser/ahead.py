"""A look ahead in a model's thoughts: does it call, or does it only write of calls?"""

from __future__ import annotations

from collections.abc import Sequence

from server.text.scan.markers import markers
from server.text.scan.scanner import Scan, Scanner, run
from server.text.tools.format import Functions, ToolFormat


class Ahead:
    """Reads on behind a call's start: are calls of known functions all that comes?

    It is over once something else does. The thoughts' end may stand behind the calls; where it
    stands within what looked like one, that was none.
    """

    def __init__(self, tools: ToolFormat, functions: Functions, ends: Sequence[str]) -> None:
        self.is_over = self.breaks_off = False
        self._tools, self._functions, self._ends = tools, functions, ends
        self._scanner = Scanner()
        self._chars = 0
        self._marks, self._tail = markers(*ends), ""
        self._end_at: int | None = None
        self._in_call, self._alone = True, False
        self._reader = self._read()
        run(self._reader)

    def __call__(self, piece: str) -> bool:
        """Take more text; whether it is over."""
        if self._end_at is None:
            self._look_for_end(piece)
        self._chars += len(piece)
        self._scanner.add(piece)
        going = run(self._reader)
        self.is_over = not going or (self._in_call and self._end_at is not None)
        return self.is_over

    def only_calls(self, *, cut: bool) -> bool:
        """Whether there were calls and nothing else, when no more text comes."""
        if not self.is_over:
            self._scanner.ended, self._scanner.cut = True, cut
            run(self._reader)
        return self._alone

    @property
    def read_chars(self) -> int:
        """Where something else comes, or the thoughts' end before it."""
        return self._at if self._end_at is None else min(self._at, self._end_at)

    @property
    def _at(self) -> int:
        return self._chars - len(self._scanner.text) + self._scanner.at

    def _look_for_end(self, piece: str) -> None:
        seen = self._tail + piece
        found = self._marks.find(seen, 0)
        if found and found.whole:
            self._end_at = self._chars - len(self._tail) + found.start
        self._tail = seen[-max(map(len, self._ends)) :]

    def _read(self) -> Scan[None]:
        scanner = self._scanner
        while (yield from self._call()):
            self._in_call = False
            yield from scanner.after_space()
            while (yield from scanner.literal(*self._ends)):
                yield from scanner.after_space()
            if not (yield from scanner.peek()):
                self._alone = True
                return
            if not (yield from scanner.literal(*self._tools.starts)):
                return
            self._in_call = True

    def _call(self) -> Scan[bool]:
        """Read what is behind a start; whether that is known functions' calls."""
        yield from self._tools.read(self._scanner, self._functions)
        names = [call.name for call in self._scanner.take().calls if call.name]
        self.breaks_off = self._scanner.ended and not names
        known = bool(names) and all(name in self._functions for name in names)
        return known and (self._end_at is None or self._at <= self._end_at)
