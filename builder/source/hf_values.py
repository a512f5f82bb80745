"""Reads single values of Hugging Face's config.json, as a field's entry says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.errors import ModelError
from builder.families import Field, lookup
from builder.families.fields import REQUIRED, holds

Fields = dict[str, Any]
Table = Mapping[str, Sequence[Field]]


def read(path: Path, fields: Fields, entries: Iterable[Field]) -> Fields:
    """The attributes that `entries` describe; of several entries of one, the first that counts.

    Raises ModelError for a field that is missing, of the wrong kind, or that can't be carried over.
    """
    table: dict[str, list[Field]] = {}
    for entry in entries:
        table.setdefault(entry.attribute, []).append(entry)
    values: Fields = {}
    for attribute in table:
        _resolve(path, fields, table, attribute, values)
    return values


def _resolve(path: Path, fields: Fields, table: Table, attribute: str, values: Fields) -> None:
    """Put the attribute into `values`, after those that it depends on."""
    if attribute in values:
        return
    for entry in table[attribute]:
        needed = [*entry.when, *([entry.same_as] if entry.same_as else [])]
        needed += [entry.times] if isinstance(entry.times, str) else []
        for other in needed:
            _resolve(path, fields, table, other, values)
        if holds(entry.when, values):
            values[attribute] = _value(path, fields, entry, values)
            return


def typed(path: Path, key: str, value: Any, kind: type[Any], *, zero: bool = False) -> Any:
    """The value, if it is of this kind and, if a number, positive (`zero`: or zero)."""
    if kind is float and type(value) is int:
        value = float(value)
    number = kind in (int, float)
    least = 0 if zero else math.ulp(0)
    if type(value) is not kind or (number and not least <= value < math.inf):
        wanted = f"a positive {kind.__name__}" if number else f"a {kind.__name__}"
        raise ModelError(f"{path}: {key} must be {wanted}", found=repr(value))
    return value


def _value(path: Path, fields: Fields, entry: Field, known: Fields) -> Any:
    key = next((key for key in entry.keys if lookup(fields, key) is not None), None)
    if key is None and entry.null and any(_stated(fields, key) for key in entry.keys):
        return None
    if key is not None:
        value = typed(path, key, lookup(fields, key), entry.kind, zero=entry.zero)
        value = entry.translate.get(value, value) if entry.translate else value
        return _carried(path, key, value, entry)
    if entry.same_as:
        factor = entry.times if isinstance(entry.times, int) else known[entry.times]
        return known[entry.same_as] * factor
    if entry.default is REQUIRED:
        raise ModelError(
            f"{path} has no field {' or '.join(entry.keys)}",
            do="use the config.json that was published with the weights",
        )
    return entry.default


def _stated(fields: Fields, path: str) -> bool:
    """Whether the path is there, be its value null."""
    *outer, last = path.split(".")
    holder = lookup(fields, ".".join(outer)) if outer else fields
    return isinstance(holder, Mapping) and last in holder


def _carried(path: Path, key: str, value: Any, entry: Field) -> Any:
    if entry.only and value not in entry.only:
        raise ModelError(
            f"{path}: {key} is not one that can be carried over",
            found=repr(value),
            do=f"known are {', '.join(map(str, entry.only))}",
        )
    return value
