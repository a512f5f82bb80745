"""Whether what fits a JSON schema may be a list, an object, or either: its first letter tells."""

from __future__ import annotations

from typing import Any, Final

from server.protocol.json_schema import place

CONTAINERS: Final = frozenset({"array", "object"})
_MAX_REFERENCES: Final = 64
_MAX_DEPTH: Final = 64
"""Of schemas read within one another, by whatever way: what lies deeper may be anything."""


def containers(schema: Any) -> frozenset[str]:
    """Those of CONTAINERS that fit a checked schema; rather too many than too few."""
    return _Reader(schema).read(schema)


class _Reader:
    """One schema, and where its references were seen to lead."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, frozenset[str]] = {}
        self._depth = 0

    def read(self, schema: Any) -> frozenset[str]:
        """Keywords that say nothing of the type say nothing here."""
        if not isinstance(schema, dict):
            return CONTAINERS if schema else frozenset()
        if self._depth == _MAX_DEPTH:
            return CONTAINERS
        self._depth += 1
        try:
            return self._read(schema)
        finally:
            self._depth -= 1

    def _read(self, schema: dict[str, Any]) -> frozenset[str]:
        found = CONTAINERS & _named(schema)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                found &= frozenset[str]().union(*map(self.read, schema[keyword]))
        for one in schema.get("allOf", ()):
            found &= self.read(one)
        return found & self._referred(schema.get("$ref", ""))

    def _referred(self, reference: str) -> frozenset[str]:
        if not reference.startswith("#/") or len(self._known) > _MAX_REFERENCES:
            return CONTAINERS
        if reference not in self._known:
            self._known[reference] = CONTAINERS  # for a schema that refers to itself
            self._known[reference] = self.read(place(self._root, reference))
        return self._known[reference]


def _named(schema: dict[str, Any]) -> frozenset[str]:
    if "const" in schema or "enum" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        kinds: dict[type, str] = {dict: "object", list: "array"}
        return frozenset(kinds.get(type(value), "") for value in values)
    named = schema.get("type", list(CONTAINERS))
    return frozenset(named if isinstance(named, list) else [named])
