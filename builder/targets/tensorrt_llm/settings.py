"""Reads `--set name=value`: any flag of trtllm-build, its value checked against the table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from builder.errors import LimitError
from builder.targets.tensorrt_llm.flags import FLAGS, NOT_SET, SPELLINGS, Flag, Kind

ON, OFF = ("enable", "on", "true", "yes", "1"), ("disable", "off", "false", "no", "0")


def parse(settings: Mapping[str, str]) -> dict[str, Any]:
    """Flag's name → value, of settings as they were written. `-` and `_` in names are the same.

    Raises LimitError for a name that is no flag, one that trtbuild sets itself, and a value that
    the flag doesn't take.
    """
    values: dict[str, Any] = {}
    for written, text in settings.items():
        name = written.strip().lstrip("-").replace("-", "_")
        flag = _flag(SPELLINGS.get(name, name))
        values[flag.name] = _VALUES[flag.kind](flag, text.strip())
    return values


def _flag(name: str) -> Flag:
    if name in FLAGS:
        return FLAGS[name]
    if instead := NOT_SET.get(name):
        raise LimitError(f"--set can't set {name}", do=instead)
    near = difflib.get_close_matches(name, FLAGS, n=3)
    raise LimitError(
        "trtllm-build 1.2 has no such flag",
        found=f"--set {name}",
        do=f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(FLAGS)}",
    )


def _integer(flag: Flag, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise _wrong(flag, text, "a whole number")
    return int(text)


def _text(flag: Flag, text: str) -> str:
    if not text:
        raise _wrong(flag, text, "a text")
    return text


def _switch(flag: Flag, text: str) -> bool:
    if text.lower() not in (*ON, *OFF):
        raise _wrong(flag, text, "enable or disable")
    return text.lower() in ON


def _choice(flag: Flag, text: str) -> str:
    if text not in flag.choices:
        raise _wrong(flag, text, " or ".join(flag.choices))
    return text


def _plugin(flag: Flag, text: str) -> str | None:
    if text not in (*flag.choices, "disable"):
        raise _wrong(flag, text, " or ".join((*flag.choices, "disable")))
    return None if text == "disable" else text


def _list(flag: Flag, text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if not word or (flag.choices and word not in flag.choices):
            known = " or ".join(flag.choices) or "a name"
            raise _wrong(flag, text, f"names with commas between them, each {known}")
    return words


_VALUES: Mapping[Kind, Callable[[Flag, str], Any]] = {
    Kind.INTEGER: _integer,
    Kind.TEXT: _text,
    Kind.CHOICE: _choice,
    Kind.SWITCH: _switch,
    Kind.TOGGLE: _switch,
    Kind.PLUGIN: _plugin,
    Kind.LIST: _list,
}


def _wrong(flag: Flag, text: str, wanted: str) -> LimitError:
    return LimitError(
        f"--set {flag.name} doesn't take this value", found=repr(text), do=f"give {wanted}"
    )
