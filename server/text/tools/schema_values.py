"""Values that a model wrote as bare text, as JSON of a type that their schema allows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from server.text.tools.python_literals import value_as_json

_NULLS = ("null", "None")
_NO_STRING = {"type": ["null", "boolean", "number", "array", "object"]}


def is_string(schema: Any) -> bool:
    """Whether any text is a string by this schema, or where it says nothing."""
    types = types_of(schema)
    return not types or ("string" in types and "null" not in types)


def as_json(text: str, schema: Any) -> str:
    """The value as JSON; a string where in doubt."""
    types = types_of(schema)
    if text in _NULLS and "null" in types:
        return "null"
    if not types or "string" in types:
        return json.dumps(text, ensure_ascii=False)
    try:
        json.loads(text, parse_constant=_no_number)
        return text.strip()
    except (ValueError, RecursionError):
        pass
    written = text.strip()
    found = value_as_json(written.capitalize() if types <= {"boolean", "null"} else written)
    return json.dumps(text, ensure_ascii=False) if found is None else found


def said(schema: Any, *, is_text: bool) -> Any:
    """The schema, or where it leaves open whether a value is a string, what the model said."""
    types = types_of(schema)
    if types and ("string" not in types or types == {"string"}):
        return schema
    return {"type": "string"} if is_text else _NO_STRING


def types_of(schema: Any) -> set[str]:
    """The types that a schema names, none where it names none."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    every = named if isinstance(named, list) else [named]
    types = {each for each in every if isinstance(each, str)}
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        for option in options if isinstance(options, list) else ():
            types |= types_of(option)
    return types


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
