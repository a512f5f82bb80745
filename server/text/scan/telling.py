"""What a reader makes of an answer's text: content, reasoning and calls, until they are taken."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from itertools import count
from typing import Literal

from server.protocol.request import CallDelta
from server.protocol.validation import is_json
from server.text.scan.parts import Parts

IdStyle = Literal["openai", "mistral", "kimi"]
_ALPHANUMERIC = string.ascii_letters + string.digits


class Telling:
    """Parts that are being made. Calls after `most_calls` (None: any number) are left out.

    `ids` is the form of calls' ids; `earlier_ids` are those of the conversation before, which one
    form counts, and none is given twice.
    """

    def __init__(
        self,
        ids: IdStyle = "openai",
        *,
        most_calls: int | None = None,
        earlier_ids: Sequence[str] = (),
    ) -> None:
        self.in_reasoning = False
        self.calls_made = 0
        self._fresh = self._said = False
        self._before = self._behind = ""
        self._ids: IdStyle = ids
        self._most_calls, self._earlier_calls = most_calls, len(earlier_ids)
        self._taken_ids = set(earlier_ids)
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[CallDelta] = []
        self._arguments: list[str] = []
        """Of the latest call that is told; `_broken` are those before that broke off."""
        self._broken = 0

    @property
    def called(self) -> bool:
        """Whether there were calls, all of them whole."""
        return bool(self.calls_made) and not self._broken and self._is_whole()

    def _is_whole(self) -> bool:
        return is_json("".join(self._arguments))

    def take(self) -> Parts:
        """The parts since the last time."""
        if not (self._content or self._reasoning or self._calls):
            return _NOTHING
        content, reasoning = "".join(self._content), "".join(self._reasoning)
        parts = Parts(content, reasoning, tuple(self._calls))
        self._content, self._reasoning, self._calls = [], [], []
        return parts

    def show(self, text: str) -> None:
        """`text` is content, or reasoning, without the space at its very start after a marker.

        Between two texts around calls it stays: what stands behind the calls, or else before them.
        """
        if self._fresh:
            bare = text.lstrip()
            self._behind += text[: len(text) - len(bare)]
            text, self._fresh = bare, not bare
            if text and self._said and not self.in_reasoning:
                text = (self._behind or self._before) + text
        if text:
            self._said = self._said or not self.in_reasoning
            (self._reasoning if self.in_reasoning else self._content).append(text)

    def section(self, *, reasoning: bool) -> None:
        """What is shown from here on is reasoning, or isn't; space at its start is dropped."""
        self.in_reasoning, self._fresh, self._behind = reasoning, True, ""

    def begin_call(self, name: str, call_id: str | None, held: str) -> None:
        """A call of `name`, which may have an id of its own, begins; `held` was part of it."""
        if held and not self._fresh:
            self._before = held[: len(held) - len(held.lstrip())]
        self.section(reasoning=False)
        call_id = self._free_id(name, call_id)
        if self._tell(index=self.calls_made, id=call_id, name=name):
            self._broken += self.calls_made > 0 and not self._is_whole()
            self._arguments = []
        self.calls_made += 1

    def arguments(self, text: str) -> None:
        """A piece of the latest call's arguments."""
        if text and self._tell(index=self.calls_made - 1, arguments=text):
            self._arguments.append(text)

    def _free_id(self, name: str, wanted: str | None) -> str:
        numbers = count(self._earlier_calls + self.calls_made)
        while wanted is None or wanted in self._taken_ids:
            wanted = _call_id(self._ids, name, next(numbers))
        self._taken_ids.add(wanted)
        return wanted

    def _tell(self, *, index: int, **part: str) -> bool:
        if self._most_calls is not None and index >= self._most_calls:
            return False
        at = sum(map(len, self._content))
        self._calls.append(CallDelta(index=index, at=at, **part))
        return True


def _call_id(style: IdStyle, name: str, number: int) -> str:
    """An id that the model's template takes: some refuse any other form, or show it to it."""
    if style == "mistral":
        return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))
    if style == "kimi":
        return f"functions.{name}:{number}"
    return f"call_{secrets.token_hex(12)}"


_NOTHING = Parts()
