"""Promise: of a schema is known whether a list, an object or either can fit it."""

from __future__ import annotations

from typing import Any

import pytest

from server.protocol.json_containers import containers

ARRAY, OBJECT = {"type": "array"}, {"type": "object"}
SELF = {"$ref": "#/$defs/N", "$defs": {"N": {"anyOf": [OBJECT, {"$ref": "#/$defs/N"}]}}}
DEEP: dict[str, Any] = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(60)} | {"60": ARRAY}
for name in DEEP:
    for _ in range(28):
        DEEP[name] = {"anyOf": [DEEP[name]]}
CASES: list[tuple[Any, str]] = [
    (OBJECT, "o"),
    (ARRAY, "a"),
    ({"type": ["array", "null"]}, "a"),
    ({"type": "string"}, ""),
    ({}, "ao"),
    (True, "ao"),
    (False, ""),
    ({"properties": {"a": {}}}, "ao"),
    ({"anyOf": [OBJECT, {"type": "null"}]}, "o"),
    ({"oneOf": [OBJECT, ARRAY]}, "ao"),
    ({"allOf": [{}, OBJECT]}, "o"),
    ({"enum": [[1], "a", 1]}, "a"),
    ({"const": {}}, "o"),
    ({"$ref": "#/$defs/P", "$defs": {"P": OBJECT}}, "o"),
    ({"$ref": "#/allOf/0", "allOf": [ARRAY]}, "a"),
    ({"$ref": "#"}, "ao"),
    (SELF, "ao"),
    ({"$ref": "#/$defs/0", "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(4000)}},
     "ao"),
    ({"$ref": "#/$defs/0", "$defs": DEEP}, "ao"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "expected"), CASES)
def test_what_can_fit_is_found_and_rather_too_much_than_too_little(
    schema: Any, expected: str
) -> None:
    assert {name[0] for name in containers(schema)} == set(expected)
