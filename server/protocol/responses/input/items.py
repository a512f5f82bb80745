"""The items of `input`, by their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.errors import shown
from server.protocol.openai_chat.messages import MAX_ID_CHARS, MAX_MESSAGES, MAX_PARTS
from server.protocol.responses.input.parts import read_part, refusal
from server.protocol.responses.input.structs import (
    InputFunctionCall,
    InputFunctionCallOutput,
    InputMessage,
    InputReasoning,
    InputReference,
)
from server.protocol.responses.items import Item, call_item, input_part, message_item, text_part
from server.protocol.validation import convert, require


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An item named by its `id`, in the place of the item; `param` is where it stands."""

    id: str
    param: str


def read_input(given: str | Sequence[Mapping[str, Any]] | None) -> list[Item | Reference]:
    """The items of `input`; None is none. Raises InvalidRequestError naming the item."""
    if given is None:
        return []
    if isinstance(given, str):
        return [message_item("user", [input_part(given)])]
    most = f"more than {MAX_MESSAGES} items - 'input'"
    require(len(given) <= MAX_MESSAGES, most, param="input")
    parts = sum(len(part) for item in given for part in item.values() if isinstance(part, list))
    require(parts <= MAX_PARTS, f"more than {MAX_PARTS} parts - 'input'", param="input")
    return [_read(item, f"input[{index}]") for index, item in enumerate(given)]


def _read(item: Mapping[str, Any], where: str) -> Item | Reference:
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference"
    if kind == "item_reference":
        return Reference(id=convert(item, InputReference, where).id, param=where)
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise refusal("an item", kind, where)
    return reader(item, where)


def _message(item: Mapping[str, Any], where: str) -> Item:
    given = convert(item, InputMessage, where)
    param = f"{where}.role"
    known = given.role in ("user", "assistant", "system", "developer")
    require(known, f"Invalid role '{shown(given.role)}' - '{param}'", param=param)
    written = given.role == "assistant"
    content = given.content
    if isinstance(content, str):
        parts: list[Item] = [text_part(content) if written else input_part(content)]
    else:
        parts = _parts(content, f"{where}.content", written=written)
    return message_item(given.role, parts, given.status or "completed", **_id(given.id))


def _parts(parts: Sequence[Mapping[str, Any]], where: str, *, written: bool) -> list[Item]:
    return [
        read_part(part, f"{where}[{index}]", written=written) for index, part in enumerate(parts)
    ]


def _function_call(item: Mapping[str, Any], where: str) -> Item:
    given = convert(item, InputFunctionCall, where)
    _check_sizes(where, call_id=given.call_id, name=given.name)
    _direct(given.caller, given.namespace, where)
    param = f"{where}.async"
    require(not given.waits, f"'{param}' can't be honoured", param=param)
    status = given.status or "completed"
    return call_item(given.call_id, given.name, given.arguments, status, **_id(given.id))


def _function_call_output(item: Mapping[str, Any], where: str) -> Item:
    given = convert(item, InputFunctionCallOutput, where)
    _check_sizes(where, call_id=given.call_id)
    _direct(given.caller, given.namespace, where)
    output: str | list[Item]
    if isinstance(given.output, str):
        output = given.output
    else:
        output = _parts(given.output, f"{where}.output", written=False)
    return {
        "type": "function_call_output",
        "status": given.status or "completed",
        "call_id": given.call_id,
        "output": output,
        **_id(given.id),
    }


def _reasoning(item: Mapping[str, Any], where: str) -> Item:
    given = convert(item, InputReasoning, where)
    summary, content = given.summary or [], given.content or []
    param = f"{where}.encrypted_content"
    readable = not given.encrypted_content or bool(summary or content)
    require(readable, f"'{param}' can't be read here, and there is no 'content'", param=param)
    return {
        "type": "reasoning",
        "status": given.status or "completed",
        "summary": [{"type": "summary_text", "text": part.text} for part in summary],
        "content": [{"type": "reasoning_text", "text": part.text} for part in content],
        **_id(given.id),
    }


_READERS: Final = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
}


def _check_sizes(where: str, **texts: str) -> None:
    for name, text in texts.items():
        param = f"{where}.{name}"
        sizes = f"1 to {MAX_ID_CHARS} characters - '{param}'"
        require(0 < len(text) <= MAX_ID_CHARS, sizes, param=param)


def _direct(caller: Any, namespace: str | None, where: str) -> None:
    """Programs that call functions, and namespaces of functions, aren't there."""
    fine = caller is None or caller == {"type": "direct"}
    require(fine, f"'{where}.caller' can't be honoured", param=f"{where}.caller")
    require(not namespace, f"'{where}.namespace' can't be honoured", param=f"{where}.namespace")


def _id(given: str | None) -> dict[str, str]:
    return {"id": given} if given else {}
