"""Where something stands in a schema: as it is found, by a reference, and as it is written."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

Place = tuple[Any, ...]
"""Where a schema stands: the place of the one around it, then keyword, index or name; () for all.

Names can be as long as a body: written out for each schema, they would fill the memory."""
_POINTER_ESCAPES = (("~1", "/"), ("~0", "~"))
_INDEX = re.compile(r"\d{1,6}", re.ASCII)


def place(schema: Any, reference: str) -> Any:
    """What `#/…` refers to. Raises LookupError."""
    found = schema
    for step in unquote(reference[2:]).split("/"):
        for escape, character in _POINTER_ESCAPES:
            step = step.replace(escape, character)
        if isinstance(found, dict):
            found = found[step]
        elif isinstance(found, list) and _INDEX.fullmatch(step):
            found = found[int(step)]
        else:
            raise LookupError(step)
    return found


def written(where: Place) -> str:
    """The place in full, as it comes after a parameter's name."""
    steps = []
    while where:
        where, *at = where
        steps.append("".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at))
    return "".join(reversed(steps))
