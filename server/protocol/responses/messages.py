"""Items as the messages that chat templates know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from server.errors import InvalidRequestError, shown
from server.protocol.responses.items import Item

Message = dict[str, Any]
_THOUGHTS: Final = "thoughts"


def chat_messages(instructions: str | None, items: Sequence[Item]) -> list[Message]:
    """`instructions` first; all that a model wrote in one turn becomes one message.

    Raises InvalidRequestError for the output of a function that wasn't called.
    """
    messages: list[Message] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    names: dict[str, str] = {}
    for item in items:
        if item["type"] == "function_call_output":
            messages.append(_tool_message(item, names))
        elif item["type"] == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": _text(item["content"])})
        else:
            if item["type"] == "function_call":
                names[item["call_id"]] = item["name"]
            _add_to_turn(messages, item)
    for message in messages:
        if thoughts := message.pop(_THOUGHTS, None):
            message["reasoning_content"] = "".join(thoughts)
    return messages


def _tool_message(item: Item, names: Mapping[str, str]) -> Message:
    call_id, output = item["call_id"], item["output"]
    if call_id not in names:
        complaint = f"No tool call found for function call output with call_id {shown(call_id)}."
        raise InvalidRequestError(complaint, param="input")
    content = output if isinstance(output, str) else _text(output)
    return {"role": "tool", "tool_call_id": call_id, "name": names[call_id], "content": content}


def _add_to_turn(messages: list[Message], item: Item) -> None:
    """A turn is reasoning, then a message, then calls; any of them may be missing."""
    kind = item["type"]
    last = messages[-1] if messages else {}
    begins = kind in ("message", "reasoning") and _is_said(last)
    if last.get("role") != "assistant" or begins:
        last = {"role": "assistant", "content": ""}
        messages.append(last)
    if kind == "message":
        last["content"] = _text(item["content"])
    elif kind == "reasoning":
        last.setdefault(_THOUGHTS, []).append(_text(item["content"] or item["summary"]))
    else:
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        last.setdefault("tool_calls", []).append(call)


def _is_said(message: Message) -> bool:
    return bool(message.get("content") or message.get("tool_calls"))


def _text(parts: Iterable[Item]) -> str:
    return "\n".join(part.get("text") or part.get("refusal") or "" for part in parts)
