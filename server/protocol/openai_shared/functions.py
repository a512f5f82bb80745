"""Functions that a model is told of, checked, in the form that chat templates know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from server.protocol import json_schema
from server.protocol.openai_shared.answers import without_none
from server.protocol.validation import check_name, require

MAX_TOOLS: Final = 128
"""OpenAI's bound."""
MAX_DESCRIPTION_CHARS: Final = 64 * 1024
MAX_SCHEMAS: Final = 20_000
"""In all functions together: four times what one may have."""
NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


class FunctionParameters(Protocol):
    """What the dialects' functions have in common.

    Their `strict` is not acted on: a call that is demanded is held to `parameters` always, and one
    of an answer that may be a form instead. One that the model makes of its own accord is in the
    model's own syntax, which no guide covers.
    """

    name: str
    description: str | None
    parameters: dict[str, Any] | None


def checked_functions(
    functions: Iterable[tuple[str, FunctionParameters]], param: str
) -> list[dict[str, Any]]:
    """Functions, each with its place, as templates are told of them. `param` holds them all.

    Raises InvalidRequestError naming the place.
    """
    known: dict[str, dict[str, Any]] = {}
    schemas = 0
    for where, function in functions:
        schemas += _check(where, function)
        many = f"more than {MAX_SCHEMAS} schemas in all functions - '{param}'"
        require(schemas <= MAX_SCHEMAS, many, param=param)
        twice = f"two functions are called '{function.name}' - '{where}.name'"
        require(function.name not in known, twice, param=f"{where}.name")
        known[function.name] = _tool_json(function)
        most = f"at most {MAX_TOOLS} functions - '{param}'"
        require(len(known) <= MAX_TOOLS, most, param=param)
    return list(known.values())


def _check(where: str, function: FunctionParameters) -> int:
    """How many schemas its parameters are."""
    check_name(function.name, f"{where}.name")
    long = f"more than {MAX_DESCRIPTION_CHARS} characters - '{where}.description'"
    short = len(function.description or "") <= MAX_DESCRIPTION_CHARS
    require(short, long, param=f"{where}.description")
    if (parameters := function.parameters) is None:
        return 0
    param = f"{where}.parameters"
    an_object = parameters.get("type", "object") == "object"
    require(an_object, f"arguments are an object - '{param}.type'", param=f"{param}.type")
    _, schemas = json_schema.checked(parameters, param)
    return schemas


def _tool_json(function: FunctionParameters) -> dict[str, Any]:
    parameters = function.parameters or NO_PARAMETERS
    told = {"name": function.name, "description": function.description, "parameters": parameters}
    return {"type": "function", "function": without_none(told)}
