"""What a response is made of: items, the JSON objects that clients see.

Those of the input have no `id` until they are kept, unless the client gave one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

Item = Mapping[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]

ID_PREFIX: Final = "resp_"
PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
}
"""How the ids of each type of item begin."""


def item_id(kind: str, response_id: str, place: str) -> str:
    """An id for an item of a response, told from the others' by its `place`."""
    return f"{PREFIXES[kind]}{response_id.removeprefix(ID_PREFIX)}_{place}"


def response_of(item_id: str) -> str | None:
    """The response whose item has an id of ours."""
    for prefix in PREFIXES.values():
        stem, _, place = item_id.removeprefix(prefix).rpartition("_")
        if item_id.startswith(prefix) and stem and place:
            return ID_PREFIX + stem
    return None


def with_ids(items: Sequence[Item], response_id: str) -> list[Item]:
    """Items of a response's input, each with an id: those that have none get one."""
    return [
        item if item.get("id") else {**item, "id": item_id(item["type"], response_id, f"i{index}")}
        for index, item in enumerate(items)
    ]


def message_item(
    role: str, content: Sequence[Item], status: Status = "completed", **more: Any
) -> dict[str, Any]:
    """What somebody says."""
    return {"type": "message", "status": status, "role": role, "content": content, **more}


def reasoning_item(content: Sequence[Item], status: Status, **more: Any) -> dict[str, Any]:
    """What a model thinks; nothing is summed up."""
    return {"type": "reasoning", "status": status, "summary": [], "content": content, **more}


def call_item(
    call_id: str, name: str, arguments: str, status: Status, **more: Any
) -> dict[str, Any]:
    """A function that a model calls; `arguments` is JSON text."""
    call = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "function_call", "status": status, **call, **more}


def input_part(text: str) -> dict[str, Any]:
    """Text that the model is given."""
    return {"type": "input_text", "text": text}


def text_part(text: str, log_probs: Sequence[Any] = ()) -> dict[str, Any]:
    """The content of a model's message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": log_probs}


def reasoning_part(text: str) -> dict[str, Any]:
    """The content of reasoning."""
    return {"type": "reasoning_text", "text": text}
