"""The keywords of JSON schemas, of draft 2020-12 and of draft 7, and what their values must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

TYPES: Final = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})

_ONE_SCHEMA = """
not if then else additionalProperties unevaluatedProperties unevaluatedItems contains
propertyNames additionalItems contentSchema
"""
_COUNTS = """
minLength maxLength minItems maxItems minProperties maxProperties minContains maxContains
"""
_TEXTS = """
$ref $id $schema $anchor $comment title description format pattern
"""

SCHEMA: Final = frozenset(_ONE_SCHEMA.split())
SCHEMAS: Final = frozenset(["allOf", "anyOf", "oneOf", "prefixItems"])
SCHEMAS_BY_NAME: Final = frozenset(
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"]
)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    whole = not isinstance(value, float) or value.is_integer()
    return _is_number(value) and whole and value >= 0


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


VALUES: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "type": ("one of JSON's types, or a list of them", _is_type),
    "enum": ("a list", lambda value: isinstance(value, list) and bool(value)),
    "required": ("a list of strings", _is_strings),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), ("a number", _is_number)
    ),
    **dict.fromkeys(
        _COUNTS.split(),
        ("a number of things", _is_count),
    ),
    **dict.fromkeys(
        _TEXTS.split(),
        ("a string", lambda value: isinstance(value, str)),
    ),
    **dict.fromkeys(
        ["uniqueItems", "deprecated", "readOnly", "writeOnly"],
        ("true or false", lambda value: isinstance(value, bool)),
    ),
}
