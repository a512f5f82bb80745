"""What an answer is held to, so that calls that are asked for always fit their schema.

A model that is free to call a function or to answer in a form writes JSON either way. Which of the
two it is shows at once: calls are a list and a form is an object, or the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.protocol.json_containers import containers
from server.protocol.request import TextRequest, ToolUse

_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_NO_SCHEMAS = frozenset({"const", "enum", "default", "examples", "example"})


WRAPPER = "tool_calls"
"""The key under which calls are in an object, where a list of them could be the form."""
_FORM = ".form"
"""The form's place among the functions' schemas: no function has such a name."""
_ANY_OBJECT = {"type": "object"}


def guide_for(request: TextRequest) -> Guide | None:
    """What the answer to `request` is held to; None for nothing.

    A named function's call: its parameters' schema. Any function's: a list of objects with `name`
    and `parameters`, one alone unless calls may be parallel. A form that leaves the model free to
    call: such a list, or the form. Raises InvalidRequestError for a function that isn't told of,
    and for schemas that refer to what isn't in them.
    """
    use = request.tools
    if use is None or not (use.demanded or request.guide):
        return request.guide
    functions = [tool["function"] for tool in use.tools]
    try:
        if use.choice == "named":
            schema = _one(functions, use)
        elif use.choice == "required" or request.guide is None:
            schema = _calls(functions, use)
        else:
            schema = _calls_or_form(functions, use, request.guide)
        text = json.dumps(schema, ensure_ascii=False)
        return Guide(kind="json_schema", text=text, param="tools")
    except RecursionError:
        raise InvalidRequestError("a schema is nested too deeply", param="tools") from None


def wraps_calls(form: Guide) -> bool:
    """Whether calls are in an object under WRAPPER, as the form may be a list itself."""
    return "array" in containers(_schema_of(form))


def _one(functions: list[Mapping[str, Any]], use: ToolUse) -> dict[str, Any]:
    for function in functions:
        if function["name"] == use.named:
            return _parameters(function)
    raise InvalidRequestError(
        "the function that must be called is not among the tools",
        param="tool_choice",
        found=repr(use.named),
    )


def _calls_or_form(functions: list[Mapping[str, Any]], use: ToolUse, form: Guide) -> dict[str, Any]:
    calls = _calls(functions, use)
    defs = {**calls.pop("$defs"), _FORM: _moved(_FORM, _schema_of(form))}
    if wraps_calls(form):
        calls = _object({WRAPPER: calls})
    return {"anyOf": [calls, {"$ref": _place(_FORM)}], "$defs": defs}


def _schema_of(form: Guide) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(form.text) if form.text else _ANY_OBJECT
    return schema


def _calls(functions: list[Mapping[str, Any]], use: ToolUse) -> dict[str, Any]:
    """Every schema keeps a place of its own, and what refers to its parts goes there."""
    most = {} if use.parallel else {"maxItems": 1}
    schemas = {each["name"]: _moved(each["name"], _parameters(each)) for each in functions}
    return {
        "type": "array",
        "minItems": 1,
        **most,
        "items": {"anyOf": [_call(name) for name in schemas]},
        "$defs": schemas,
    }


def _call(name: str) -> dict[str, Any]:
    return _object({"name": {"const": name}, "parameters": {"$ref": _place(name)}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """A function's schema: arguments are always an object."""
    return {"type": "object", **(function.get("parameters") or {})}


def _place(name: str) -> str:
    return "#/$defs/" + name.replace("~", "~0").replace("/", "~1")


def _moved(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as part of a larger one, its `#` replaced by its place there."""
    moved: dict[str, Any] = _references(schema, name)
    return {key: value for key, value in moved.items() if key not in ("$id", "$schema")}


def _references(schema: Any, name: str) -> Any:
    if isinstance(schema, list):
        return [_references(each, name) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _value(key, value, name) for key, value in schema.items()}


def _value(key: str, value: Any, name: str) -> Any:
    if key == "$ref" and isinstance(value, str):
        return _reference(value, name)
    if key in _NAMED_SCHEMAS and isinstance(value, dict):
        return {each: _references(schema, name) for each, schema in value.items()}
    return value if key in _NO_SCHEMAS else _references(value, name)


def _reference(target: str, name: str) -> str:
    if not target.startswith("#"):
        raise InvalidRequestError(
            f"the schema of {name!r} refers to another document",
            param="tools",
            found=repr(target[:200]),
            do="put what it refers to into its $defs",
        )
    return _place(name) + target[1:] if target[1:2] in ("", "/") else target
