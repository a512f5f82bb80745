"""One thing that `trtbuild doctor` looked at: how it stands, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`do` is empty where nothing is to be done."""

    name: str
    level: Level
    found: str
    do: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whether a target can be built and served here; `do` is what it lacks, or what to know."""

    name: str
    builds: bool
    serves: bool
    do: str = ""
