"""LLM-API settings as they are typed after `--set`: dotted names, and texts to be read by kind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import LimitError
from builder.targets.llmapi.setting import Kind, Setting

FREE = (Kind.WORDS, Kind.MAP, Kind.ANY)
"""Kinds whose maps have any keys."""

ELEMENTS = {
    Kind.WHOLES: Kind.WHOLE,
    Kind.REALS: Kind.REAL,
    Kind.TEXTS: Kind.TEXT,
    Kind.LISTS: Kind.WHOLES,
}
"""A list's kind → its elements'."""


@dataclass(frozen=True)
class Raw:
    """A value as it was typed, to be read as its setting's kind."""

    text: str


def nest(pairs: Mapping[str, str]) -> dict[str, Any]:
    """`--set` pairs as nested maps of Raw. Raises LimitError for a name that is set twice over."""
    nested: dict[str, Any] = {}
    for name, typed in pairs.items():
        *outer, last = name.split(".")
        holder = nested
        for part in outer:
            holder = holder.setdefault(part, {})
            if isinstance(holder, Raw):
                raise LimitError(f"{part} is set as a whole and in part", found=name)
        if last in holder:
            raise LimitError(f"{name} is set as a whole and in part", found=f"{name}={typed}")
        holder[last] = Raw(typed)
    return nested


def typed_keys(found: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """A map of any keys, some of whose values were set by dotted names."""
    read = {}
    for key, each in found.items():
        if isinstance(each, Mapping):
            each = typed_keys(each, kind)
        elif isinstance(each, Raw):
            each = each.text if kind is Kind.WORDS else _json(each.text)
        read[key] = each
    return read


_WHOLE = re.compile(r"[-+]?\d{1,20}")
_REAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def read(setting: Setting, typed: str, name: str) -> Any:
    """What was typed, as its setting's kind; text that doesn't read so is left as it is."""
    if typed == "null" or typed in setting.words:
        return None if typed == "null" else typed
    if setting.kind is Kind.TEXT:
        return typed
    if setting.kind is Kind.FLAG:
        return {"true": True, "false": False}.get(typed.lower(), typed)
    if setting.kind is Kind.WHOLE:
        return int(typed) if _WHOLE.fullmatch(typed) else typed
    if setting.kind is Kind.REAL:
        return float(typed) if _REAL.fullmatch(typed) else typed
    if setting.kind in ELEMENTS and not typed.startswith("["):
        element = Setting(name=name, kind=ELEMENTS[setting.kind])
        return [read(element, part.strip(), name) for part in typed.split(",")]
    found = _json(typed)
    if setting.kind is Kind.SCHEDULE and isinstance(found, dict):
        found = {int(key) if _WHOLE.fullmatch(key) else key: each for key, each in found.items()}
    return found


def _json(typed: str) -> Any:
    """What was typed, as JSON where it is that."""
    try:
        return json.loads(typed)
    except ValueError:
        return typed
