"""What an answer is to be held to, by OpenAI's, trtllm-serve's and vLLM's names for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from server.backend.base import Guide, GuideKind
from server.errors import InvalidRequestError, shown
from server.protocol import json_schema
from server.protocol.json_containers import CONTAINERS, containers
from server.protocol.request import ToolUse
from server.protocol.validation import Name, check_name, require

MAX_GUIDE_CHARS = 256 * 1024
MAX_ALTERNATIVES = 1000
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
"""The characters that a backslash makes plain in every dialect of regular expressions."""


class JsonSchemaFormat(msgspec.Struct, forbid_unknown_fields=True):
    """`response_format.json_schema`. Answers are always held to it, `strict` or not."""

    name: Name
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    """`response_format`; `format` is of structural tags, which are refused."""

    type: str
    json_schema: JsonSchemaFormat | None = None
    schema: dict[str, Any] | None = None
    regex: str | None = None
    ebnf: str | None = None
    grammar: str | None = None
    format: Any = None


class StructuredOutputs(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`; what is `Any` is accepted when it asks for nothing."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None
    whitespace_pattern: Any = None
    disable_fallback: Any = None
    disable_any_whitespace: Any = None
    disable_additional_properties: Any = None


class Guided(Protocol):
    """A request with all names for guides."""

    response_format: ResponseFormat | None
    structured_outputs: StructuredOutputs | None
    guided_json: str | dict[str, Any] | None
    guided_regex: str | None
    guided_choice: list[str] | None
    guided_grammar: str | None


FORMATS: Final[dict[str, tuple[str | None, GuideKind]]] = {
    "json_object": ("schema", "json_schema"),
    "json": ("schema", "json_schema"),
    "json_schema": ("json_schema", "json_schema"),
    "regex": ("regex", "regex"),
    "ebnf": ("ebnf", "ebnf_grammar"),
    "grammar": ("grammar", "ebnf_grammar"),
    "text": (None, "json"),
}
"""The types of `response_format`: the field that says more, and what it is."""
_FORMAT_FIELDS: Final = frozenset(ResponseFormat.__struct_fields__) - {"type"}
_NEEDED: Final = frozenset({"json", "json_schema", "regex", "ebnf", "grammar"})
_REFUSED_OUTPUTS: Final = (
    "structural_tag",
    "whitespace_pattern",
    "disable_fallback",
    "disable_any_whitespace",
    "disable_additional_properties",
)


def guide(request: Guided, *, tools: ToolUse | None = None) -> Guide | None:
    """What the answer is held to; None for nothing.

    Raises InvalidRequestError when it is held to two things, or to what is no schema, or to what
    leaves no room for calls of `tools`.
    """
    found = [(param, guide) for param, guide in _guides(request) if guide is not None]
    for param, _ in found[1:]:
        two = f"an answer can't be held to '{found[0][0]}' and to '{param}'"
        raise InvalidRequestError(two, param=param)
    if not found:
        return None
    check_room_for_calls(found[0][1], tools, found[0][0])
    return found[0][1]


def check_room_for_calls(made: Guide, tools: ToolUse | None, param: str) -> None:
    """An answer that may be calls or a form is JSON, of which its beginning tells which it is.

    Raises InvalidRequestError naming `param`, which asked for the form.
    """
    if tools is None or tools.demanded:
        return
    if made.kind not in ("json", "json_schema"):
        what = f"only a JSON form leaves the model free to call a tool - '{param}'"
        do = "set 'tool_choice' to 'none' or 'required'"
        raise InvalidRequestError(what, param=param, do=do)
    if made.text and containers(msgspec.json.decode(made.text)) == CONTAINERS:
        what = f"a form that may be a list or an object can't be told from calls - '{param}'"
        raise InvalidRequestError(what, param=param, do="give its schema a 'type': 'object'")


def _format(given: ResponseFormat) -> Guide | None:
    if given.type not in FORMATS:
        raise InvalidRequestError(
            f"'{shown(given.type)}' is not one of {sorted(FORMATS)} - 'response_format.type'",
            param="response_format.type",
        )
    field, kind = FORMATS[given.type]
    for other in sorted(_FORMAT_FIELDS - {field}):
        where = f"response_format.{other}"
        complaint = f"'{where}' doesn't belong to the type '{given.type}'"
        require(getattr(given, other) is None, complaint, param=where)
    if field is None:
        return None
    value, where = getattr(given, field), f"response_format.{field}"
    missing = f"'{where}' is required for the type '{given.type}'"
    require(value is not None or given.type not in _NEEDED, missing, param=where)
    if isinstance(value, JsonSchemaFormat):
        check_name(value.name, f"{where}.name")
        value, where = value.schema, f"{where}.schema"
    return _guide(kind, value, where)


def _guides(request: Guided) -> Iterator[tuple[str, Guide | None]]:
    if request.response_format is not None:
        yield "response_format", _format(request.response_format)
    if (outputs := request.structured_outputs) is not None:
        yield from _output_guides(outputs)
    yield "guided_json", _given("json_schema", request.guided_json, "guided_json")
    yield "guided_regex", _given("regex", request.guided_regex, "guided_regex")
    yield "guided_choice", _choice(request.guided_choice, "guided_choice")
    yield "guided_grammar", _given("ebnf_grammar", request.guided_grammar, "guided_grammar")


def _output_guides(outputs: StructuredOutputs) -> Iterator[tuple[str, Guide | None]]:
    for name in _REFUSED_OUTPUTS:
        where = f"structured_outputs.{name}"
        require(not getattr(outputs, name), f"'{where}' can't be honoured", param=where)
    fields: tuple[tuple[str, GuideKind], ...] = (
        ("json", "json_schema"),
        ("regex", "regex"),
        ("grammar", "ebnf_grammar"),
    )
    for name, kind in fields:
        where = f"structured_outputs.{name}"
        yield where, _given(kind, getattr(outputs, name), where)
    where = "structured_outputs.choice"
    yield where, _choice(outputs.choice, where)
    where = "structured_outputs.json_object"
    yield where, Guide(kind="json", param=where) if outputs.json_object else None


def _given(kind: GuideKind, value: Any, param: str) -> Guide | None:
    return None if value is None else _guide(kind, value, param)


def _guide(kind: GuideKind, value: Any, param: str) -> Guide:
    """A schema may be JSON text; none is any JSON object."""
    if kind != "json_schema":
        sizes = f"1 to {MAX_GUIDE_CHARS} characters - '{param}'"
        require(0 < len(value) <= MAX_GUIDE_CHARS, sizes, param=param)
        return Guide(kind=kind, text=value, param=param)
    if value is None:
        return Guide(kind="json", param=param)
    return Guide(kind=kind, text=json_schema.checked_text(value, param), param=param)


def _choice(alternatives: list[str] | None, param: str) -> Guide | None:
    """One of several texts: as a JSON schema it would be quoted."""
    if alternatives is None:
        return None
    sizes = f"1 to {MAX_ALTERNATIVES} texts - '{param}'"
    require(0 < len(alternatives) <= MAX_ALTERNATIVES, sizes, param=param)
    require(all(alternatives), f"an alternative is empty - '{param}'", param=param)
    escaped = (_META.sub(r"\\\g<0>", text) for text in alternatives)
    return _guide("regex", f"({'|'.join(escaped)})", param)
