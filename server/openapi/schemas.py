"""Types as JSON schemas, each told once among the document's components."""

from __future__ import annotations

from typing import Any

import msgspec

Schema = dict[str, Any]

_PLACE = "#/components/schemas/"
_PRIVATE = "Input"
"""What the names of types begin with that are private to their modules."""


class Schemas:
    """Collects the schemas that others refer to, in `components`."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def ref(self, kind: Any) -> Schema:
        """The schema of a type; structs are components."""
        (schema,), components = msgspec.json.schema_components(
            [kind], ref_template=_PLACE + "{name}"
        )
        for name, component in components.items():
            self.components[_shown(name)] = _tidy(component)
        found: Schema = _tidy(schema)
        return found

    def inline(self, struct: type) -> Schema:
        """The schema of a struct itself, which is no component then."""
        self.ref(struct)
        return self.components.pop(_shown(struct.__name__))


def _shown(name: str) -> str:
    return _PRIVATE + name.lstrip("_") if name.startswith("_") else name


def _tidy(schema: Any) -> Any:
    """Without titles, which are the names again, and defaults of null; docstrings in one line."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: Schema = {}
    for word, value in schema.items():
        if word == "properties":
            tidy[word] = {name: _tidy(inner) for name, inner in value.items()}
        elif word == "description":
            tidy[word] = " ".join(value.split())
        elif word == "$ref":
            tidy[word] = _PLACE + _shown(value.removeprefix(_PLACE))
        elif word != "title" and not (word == "default" and value is None):
            tidy[word] = value if word in ("enum", "required", "const") else _tidy(value)
    return tidy
