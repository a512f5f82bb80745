"""The document as a page of its own: no script, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_FOLDER: Final = Path(__file__).parent


def page(document: dict[str, Any]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = kind
    return environment.get_template("page.html.j2").render(document=document, **document)


def kind(schema: dict[str, Any]) -> str:
    """A schema in a few words: its types, or the values that it may have."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(_json(value) for value in schema["enum"])
    if "const" in schema:
        return _json(schema["const"])
    if schema.get("type") == "array":
        return f"[{kind(schema.get('items', {}))}]"
    named = str(schema.get("type", "anything"))
    if named == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"{{string: {kind(schema['additionalProperties'])}}}"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None and most is None:
        return named
    if most is None:
        return f"{named} ≥ {least}"
    return f"{named} {least} to {most}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
