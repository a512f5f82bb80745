"""Whether a model is thinking, told by its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from server.thinking.plan import Thinking

MOST_BLANKS: Final = 4
"""Before the thoughts; what begins with more isn't thought."""


class State(Enum):
    """How far the thoughts are. With one of the last three they are over."""

    BEFORE = "before"
    WITHIN = "within"
    NONE = "none"
    """The answer begins without any."""
    ENDED = "ended"
    """By the model."""
    SPENT = "spent"
    """The model would go on thinking, or end here."""


_OVER: Final = (State.NONE, State.ENDED, State.SPENT)


class Watch:
    """Looks at one sequence's tokens until its thoughts are over."""

    def __init__(self, thinking: Thinking) -> None:
        self._thinking = thinking
        self._matched = self._blanks = self._count = 0
        self.state = State.BEFORE if thinking.start else State.WITHIN

    @property
    def over(self) -> bool:
        """Whether the thoughts are over."""
        return self.state in _OVER

    def kept(self, ids: Sequence[int]) -> int:
        """How many of these are part of the thoughts, the marks around them too."""
        for place, token in enumerate(ids):
            if self.over or not self._keeps(token):
                return place
        return len(ids)

    def _keeps(self, token: int) -> bool:
        if self.state is State.BEFORE:
            return self._opens(token)
        if token == self._thinking.end[0]:
            self.state = State.ENDED
        elif token in self._thinking.eos_ids:
            self.state = State.SPENT
            return False
        else:
            self._count += 1
            self._spend()
        return True

    def _opens(self, token: int) -> bool:
        thinking = self._thinking
        if token == thinking.start[self._matched]:
            self._matched += 1
            if self._matched == len(thinking.start):
                self.state = State.WITHIN
                self._spend()
        elif not self._matched and token in thinking.blanks and self._blanks < MOST_BLANKS:
            self._blanks += 1
        else:
            self.state = State.NONE
            return False
        return True

    def _spend(self) -> None:
        if self._thinking.budget is not None and self._count >= self._thinking.budget:
            self.state = State.SPENT
