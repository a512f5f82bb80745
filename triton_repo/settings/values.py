"""The settings' values as text: as a command line has them, and as `config.pbtxt` does."""

from __future__ import annotations

import re
from typing import Any

Numbers = tuple[int, ...]
Groups = tuple[Numbers, ...]

_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_PATH = re.compile(r"\{([\d,\s]*)\}")
_PLACE = "path"


def flag(text: str) -> bool:
    """A flag in upstream's words. Raises ValueError for another text, as those below do."""
    if text.lower() not in _FLAGS:
        raise ValueError(text)
    return _FLAGS[text.lower()]


def numbers(text: str) -> Numbers:
    """`1,2,3`, with a comma after the last where one likes."""
    return tuple(int(word) for word in text.strip().removesuffix(",").split(","))


def groups(text: str) -> Groups:
    """`0,1;2,3`."""
    return tuple(numbers(group) for group in text.split(";"))


def paths(text: str) -> Groups:
    """`{0},{0,0},{1}`, with spaces and a last comma where one likes."""
    found = _PATH.findall(text)
    between = "".join(_PATH.sub(_PLACE, text).split()).removesuffix(",")
    if between != ",".join([_PLACE] * len(found)):
        raise ValueError(text)
    return tuple(numbers(path) for path in found)


def flat(value: Any) -> list[Any]:
    """The numbers in a value, nested or not."""
    if not isinstance(value, tuple):
        return [value]
    return [number for each in value for number in flat(each)]


def text(value: Any, *, tree: bool = False) -> str:
    """A value as `config.pbtxt` has it; nested lists in braces where they are a `tree`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        if value and isinstance(value[0], tuple):
            inner = [",".join(map(str, group)) for group in value]
            return ",".join(f"{{{each}}}" for each in inner) if tree else ";".join(inner)
        return ",".join(map(str, value))
    return str(value)
