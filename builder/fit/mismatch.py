"""What a comparison of an engine with a place finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """What differs: what the `engine` is or needs, what was `found`, and what to `do`.

    `command` makes the engine anew, for the place, where that mends it. One that isn't `fatal` is
    a warning: the engine loads, but not well.
    """

    what: str
    engine: str
    found: str
    do: str
    command: str = ""
    fatal: bool = True


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """What could not be compared, and why."""

    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What agrees, and in what."""

    what: str
    value: str


Found = Mismatch | Unknown | Agreement
