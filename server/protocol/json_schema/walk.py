"""All the schemas in one, each held against the table of keywords."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from server.errors import InvalidRequestError, shown
from server.protocol.json_schema.keywords import SCHEMA, SCHEMAS, SCHEMAS_BY_NAME, VALUES
from server.protocol.json_schema.pointer import Place, place, written

MAX_SUBSCHEMAS = 5000
MAX_DEPTH = 64
MAX_ENUM_VALUES = 1000
"""OpenAI's bounds on properties and on values of enumerations, taken for all subschemas; its
bound on depth is 10 objects, of which each takes several levels here."""


def check(schema: dict[str, Any], param: str) -> int:
    """How many schemas it is, itself included. Raises InvalidRequestError for what is none.

    What a reference leads to is a schema too, wherever it stands.
    """
    walk = _Walk(schema, param)
    walk.run()
    return walk.count


def refuse(what: str, param: str, path: Place = ()) -> NoReturn:
    """Raise InvalidRequestError naming the place in `param`."""
    where = shown(f"{param}{written(path)}")
    raise InvalidRequestError(f"{shown(what)} - '{where}'", param=where)


class _Walk:
    """All schemas in one, each once; where they stand is written out for a complaint only."""

    def __init__(self, schema: dict[str, Any], param: str) -> None:
        self._root, self._param = schema, param
        self._waiting: list[tuple[Any, Place, int]] = [(schema, (), 1)]
        self._references: list[tuple[str, Place]] = []
        self._seen: set[int] = set()
        self._enum_values = 0
        self.count = 0

    def run(self) -> None:
        while self._waiting:
            while self._waiting:
                self._visit(*self._waiting.pop())
            references, self._references = self._references, []
            for reference, path in references:
                self._follow(reference, (path, "$ref"))

    def _visit(self, one: Any, path: Place, depth: int) -> None:
        if id(one) in self._seen:
            return
        self.count += 1
        if self.count > MAX_SUBSCHEMAS:
            refuse(f"more than {MAX_SUBSCHEMAS} schemas in one", self._param)
        if depth > MAX_DEPTH:
            refuse(f"schemas nested more than {MAX_DEPTH} deep", self._param)
        if isinstance(one, bool):
            return
        if not isinstance(one, dict):
            refuse("not a schema", self._param, path)
        self._seen.add(id(one))
        _check_values(one, self._param, path)
        self._enum_values += len(one.get("enum", ()))
        if self._enum_values > MAX_ENUM_VALUES:
            refuse(f"more than {MAX_ENUM_VALUES} values in enumerations", self._param)
        if "$ref" in one:
            self._references.append((one["$ref"], path))
        self._waiting.extend((inner, (path, *at), depth + 1) for inner, *at in _inner(one))

    def _follow(self, reference: str, path: Place) -> None:
        """A reference must lead to a place in the same schema; names of places are the engine's."""
        if not reference.startswith("#"):
            refuse("a reference out of the schema can't be followed", self._param, path)
        if reference.startswith("#/"):
            try:
                self._waiting.append((place(self._root, reference), path, 1))
            except LookupError:
                refuse("the reference leads nowhere", self._param, path)


def _check_values(schema: dict[str, Any], param: str, path: Place) -> None:
    for keyword, value in schema.items():
        if keyword in VALUES:
            wanted, fits = VALUES[keyword]
            if not fits(value):
                refuse(f"not a JSON schema: must be {wanted}", param, (path, keyword))
        elif (keyword in SCHEMAS and not (isinstance(value, list) and value)) or (
            keyword in SCHEMAS_BY_NAME and not isinstance(value, dict)
        ):
            refuse("not a JSON schema: must hold schemas", param, (path, keyword))


def _inner(schema: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The schemas in one, each with its keyword and, in a list or by name, its place there."""
    for keyword, value in schema.items():
        if keyword in SCHEMA or (keyword == "items" and not isinstance(value, list)):
            yield value, keyword
        elif keyword in SCHEMAS or keyword == "items":
            yield from ((one, keyword, index) for index, one in enumerate(value))
        elif keyword in SCHEMAS_BY_NAME:
            yield from ((one, keyword, name) for name, one in value.items())
