"""The parts of an item's content: text, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.errors import InvalidRequestError, shown
from server.protocol.responses.input.structs import InputText, OutputText, Refusal
from server.protocol.responses.items import Item, input_part, text_part
from server.protocol.validation import convert

_NOT_OURS: Final = "it belongs to a tool or service of OpenAI's"
_NOT_READ: Final[Mapping[str, str]] = {
    "compaction": "what it holds can't be read",
    "compaction_trigger": "nothing is compacted: see 'truncation'",
    "input_image": "the model reads text only",
    "input_file": "the model reads text only",
    "input_audio": "the model reads text only",
}
"""Why an item or a part of some types can't be taken."""


def read_part(part: Mapping[str, Any], where: str, *, written: bool) -> Item:
    """A part; what the model has `written` has types of its own. Raises InvalidRequestError."""
    kind = part.get("type")
    if kind == "input_text" or (kind == "output_text" and not written):
        convert(part, InputText if kind == "input_text" else OutputText, where)
        return text_part(part["text"]) if written else input_part(part["text"])
    if kind == "output_text":
        return text_part(convert(part, OutputText, where).text)
    if kind == "refusal" and written:
        return {"type": "refusal", "refusal": convert(part, Refusal, where).refusal}
    raise refusal("a part", kind, where)


def refusal(what: str, kind: object, where: str) -> InvalidRequestError:
    """Why there is no such thing here."""
    reason = _NOT_READ.get(str(kind), _NOT_OURS)
    complaint = f"{what} of type '{shown(kind)}' can't be honoured: {reason} - '{where}'"
    return InvalidRequestError(complaint, param=where)
