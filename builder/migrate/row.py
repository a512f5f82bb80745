"""How the LLM API's place for an engine's field is written down: a row before, an outcome after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Fate(Enum):
    """What became of a field."""

    KEPT = "kept"
    LOST = "lost"
    UNNEEDED = "not needed"
    UNUSED = "not asked for"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One field by its dotted name, and what becomes of it.

    `setting` is the LLM API's name of a kept one, `words` are its values in the LLM API's words.
    Values of `neutral` ask for nothing. `only` are the values that the row is for, where a field
    has several rows. `text` is why it isn't needed, or what to do about the loss; `{value}` in it
    is the field's.
    """

    name: str
    fate: Fate
    text: str = ""
    setting: str | None = None
    words: Mapping[Any, Any] = field(default_factory=dict)
    neutral: tuple[Any, ...] = ()
    only: tuple[Any, ...] = ()

    def applies(self, value: Any) -> bool:
        """Whether the row is for this value."""
        return not self.only or value in self.only


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a field that an engine or a Triton model has.

    A kept one is the LLM API's `setting` with the value `to`. `text` is a reason, or what to do.
    """

    field: str
    value: Any
    fate: Fate
    text: str = ""
    setting: str | None = None
    to: Any = None
