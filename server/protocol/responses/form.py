"""`text` and `reasoning`: what form an answer has, and how long the model thinks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.backend.base import Guide
from server.errors import InvalidRequestError, shown
from server.protocol import json_schema
from server.protocol.openai_shared import ReasoningEffort
from server.protocol.validation import check_name, convert, require

_PLAIN: Final = {"type": "text"}


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """`text`."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct, forbid_unknown_fields=True):
    """`reasoning`."""

    effort: ReasoningEffort | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class _NoSchema(msgspec.Struct, forbid_unknown_fields=True):
    type: str


class _JsonSchema(msgspec.Struct, forbid_unknown_fields=True, rename={"schema_": "schema"}):
    type: str
    name: str
    schema_: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


def read_format(text: Text | None) -> tuple[Guide | None, Mapping[str, Any]]:
    """What the answer is held to, and `text` as the answer tells it again.

    A schema holds whether it is `strict` or not. Raises InvalidRequestError.
    """
    verbosity = text.verbosity if text else None
    where = "text.verbosity"
    fine = verbosity in (None, "medium")
    require(fine, f"'{where}' can't be honoured: the model has no such setting", param=where)
    given = (text.format if text else None) or _PLAIN
    told = {"format": given, "verbosity": verbosity or "medium"}
    where, kind = "text.format", given.get("type")
    if kind in ("text", "json_object"):
        convert(given, _NoSchema, where)
        return None if kind == "text" else Guide(kind="json", param=where), told
    if kind == "json_schema":
        form = convert(given, _JsonSchema, where)
        check_name(form.name, f"{where}.name")
        where = f"{where}.schema"
        checked = json_schema.checked_text(form.schema_, where)
        return Guide(kind="json_schema", text=checked, param=where), told
    complaint = f"'{shown(kind)}' is text, json_object or json_schema - '{where}.type'"
    raise InvalidRequestError(complaint, param=f"{where}.type")


def read_reasoning(reasoning: Reasoning | None) -> tuple[str | None, Mapping[str, Any]]:
    """The effort, and `reasoning` as the answer tells it again.

    The best summary that there is, "auto", is none: the reasoning itself is told.
    Raises InvalidRequestError.
    """
    given = reasoning or Reasoning()
    for name, neutral in (
        ("summary", ("auto",)),
        ("generate_summary", ("auto",)),
        ("context", ("auto",)),
        ("mode", ("standard",)),
    ):
        value, param = getattr(given, name), f"reasoning.{name}"
        fine = value is None or value in neutral
        require(fine, f"'{param}' can't be honoured: '{shown(value)}'", param=param)
    return given.effort, {"effort": given.effort, "summary": given.summary}
