"""MiniMax M3's calls: XML whose every tag has a marker before it, nested as the values are.

    <tool_call><invoke name="weather"><city>Rome</city><days><item>1</item></days></invoke>

(without the markers). What a text means, and whether nothing is an empty list, is up to the
function's schema. Source: the model's chat template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from server.text.scan.scanner import Scan, Scanner
from server.text.tools import section, strings
from server.text.tools.format import Functions
from server.text.tools.schema_values import as_json, is_string, types_of
from server.text.tools.word import MAX_NAME_CHARS

MARK = "]<]minimax[>["
START, END = f"{MARK}<tool_call>", f"{MARK}</tool_call>"
_CALL, _CALL_END = f'{MARK}<invoke name="', f"{MARK}</invoke>"
_NAME_END = '">'
_ITEM = "item"
_MAX_DEPTH = 64
_MAX_TEXT_CHARS = 1 << 24


def read(scanner: Scanner, functions: Functions) -> Scan[None]:
    """The calls behind the start."""
    call = partial(_call, scanner, functions)
    yield from section.calls(scanner, call, begin=_CALL, end=END)


def _call(scanner: Scanner, functions: Functions) -> Scan[bool]:
    name = yield from scanner.within(_NAME_END, MAX_NAME_CHARS)
    if not name:
        return False
    scanner.call(name)
    whole = yield from _fields(scanner, functions.get(name, {}), "{", _CALL_END, 0)
    return whole


def _fields(scanner: Scanner, schema: Any, opening: str, end: str, depth: int) -> Scan[bool]:
    """The elements before `end`, as an object's fields or, for "[", a list; whether it came."""
    scanner.arguments(opening)
    before = ""
    while True:
        yield from scanner.after_space()
        if (yield from scanner.literal(end)):
            scanner.arguments("}" if opening == "{" else "]")
            return True
        if not (yield from scanner.literal(f"{MARK}<")):
            return False
        tag = yield from scanner.within(">", MAX_NAME_CHARS)
        if tag is None:
            return False
        key = f"{json.dumps(tag, ensure_ascii=False)}: " if opening == "{" else ""
        scanner.arguments(before + key)
        before = ", "
        if not (yield from _value(scanner, _part(schema, tag, opening), tag, depth + 1)):
            return False


def _value(scanner: Scanner, schema: Any, tag: str, depth: int) -> Scan[bool]:
    """What an element holds: elements, or text up to its end."""
    end = f"{MARK}</{tag}>"
    if (yield from scanner.literal(end)):
        scanner.arguments(_nothing(types_of(schema)))
        return True
    for opening, first in (("[", f"{MARK}<{_ITEM}>"), ("{", f"{MARK}<")):
        if (yield from scanner.literal(first)):
            scanner.at -= len(first)
            inner = _fields(scanner, schema, opening, end, depth)
            return depth < _MAX_DEPTH and (yield from inner)
    if is_string(schema):
        scanner.arguments('"')
        whole = yield from strings.told(scanner, end)
        scanner.arguments('"' if whole else "")
        return whole
    text = yield from scanner.within(end, _MAX_TEXT_CHARS)
    scanner.arguments("" if text is None else as_json(text, schema))
    return text is not None


def _nothing(types: set[str]) -> str:
    """An element without anything in it, as the first that its schema allows."""
    empty = {"string": '""', "array": "[]", "object": "{}", "null": "null"}
    return next((text for kind, text in empty.items() if kind in types), '""')


def _part(schema: Any, tag: str, opening: str) -> Any:
    """The schema of a field, or of a list's items."""
    if not isinstance(schema, Mapping):
        return None
    if opening == "[":
        return schema.get("items")
    properties = schema.get("properties")
    known = properties.get(tag) if isinstance(properties, Mapping) else None
    return schema.get("additionalProperties") if known is None else known
