"""What there is to say of a way in which models write calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.text.scan.scanner import Scan, Scanner
from server.text.scan.telling import IdStyle

Functions = Mapping[str, Mapping[str, Any]]
"""The functions that may be called: each one's name, and the JSON schema of its parameters."""

Reader = Callable[[Scanner, Functions], Scan[None]]
"""Reads calls where they should stand: behind a start, or where a bare one may be.

What a reader finds to be no call it leaves held, with `at` where it gave up.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolFormat:
    """One way to write calls.

    `starts` are the texts that announce them; `bare` calls may also stand unannounced, at the
    answer's beginning. `ends` follow them. `told_by` are texts of chat templates: the format is
    the model's where all of a row are in its template, and none of `not_by`. `peers` are other
    servers' names for it. `in_reasoning` models may call without having ended their reasoning.
    `how_to_call` is for a model whose template writes calls and tells of no functions.
    """

    name: str
    read: Reader
    starts: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    bare: bool = False
    ids: IdStyle = "openai"
    told_by: tuple[tuple[str, ...], ...] = ()
    not_by: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    in_reasoning: bool = False
    how_to_call: str = ""
