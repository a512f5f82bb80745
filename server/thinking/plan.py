"""How one prompt's answers are thought about, in token ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Thinking:
    """Thoughts are behind `start`, which is () where the prompt has it already; some of `blanks`
    may come before. The first id of `end` is the model's own mark of their end; the others, which
    lead to the answer, are written for it, and so is all of it when `budget` tokens are thought
    (None: any number). `eos_ids` are those by which it would end an answer that it hasn't begun.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    budget: int | None = None
    blanks: frozenset[int] = frozenset()
    eos_ids: frozenset[int] = frozenset()
