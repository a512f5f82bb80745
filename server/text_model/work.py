"""How much work a request is, before any of it is done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_VALUE_CHARS = 16
"""What a template's work on a value costs, as so much text."""


def is_much(values: Iterable[Any], chars: int) -> bool:
    """Whether there is more in JSON `values` than in a text of so many `chars`.

    No more is looked at than it takes to know.
    """
    waiting, found = list(values), 0
    while waiting and found <= chars:
        value = waiting.pop()
        if isinstance(value, str):
            found += len(value)
            continue
        found += _VALUE_CHARS
        if isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            if value and isinstance(value[0], int):
                found += len(value)
            else:
                waiting.extend(value)
    return found > chars
