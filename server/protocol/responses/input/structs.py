"""The fields of the items of `input` and of their parts, as they may be sent.

What is `Any` changes nothing, or is refused by name where it asks for something.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.protocol.responses.items import Status


class InputMessage(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody said."""

    role: str
    content: str | list[dict[str, Any]]
    type: str | None = None
    id: str | None = None
    status: Status | None = None
    phase: str | None = None


class InputFunctionCall(msgspec.Struct, forbid_unknown_fields=True, rename={"waits": "async"}):
    """A call that a model made; `arguments` is JSON text, as it wrote it."""

    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None
    caller: Any = None
    namespace: str | None = None
    created_by: Any = None
    waits: bool | None = None


class InputFunctionCallOutput(msgspec.Struct, forbid_unknown_fields=True):
    """What a call gave back."""

    type: str
    call_id: str
    output: str | list[dict[str, Any]]
    id: str | None = None
    status: Status | None = None
    name: str | None = None
    caller: Any = None
    namespace: str | None = None
    created_by: Any = None


class InputThought(msgspec.Struct):
    """A part of reasoning, or of its summary."""

    text: str
    type: str


class InputReasoning(msgspec.Struct, forbid_unknown_fields=True):
    """What a model thought."""

    type: str
    id: str | None = None
    summary: list[InputThought] | None = None
    content: list[InputThought] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class InputReference(msgspec.Struct, forbid_unknown_fields=True):
    """An item that is kept."""

    id: str
    type: str | None = None


ITEMS: Final[tuple[type, ...]] = (
    InputMessage,
    InputFunctionCall,
    InputFunctionCallOutput,
    InputReasoning,
    InputReference,
)
"""What the items of `input` are read into."""


class InputText(msgspec.Struct, forbid_unknown_fields=True):
    """Text for the model."""

    type: str
    text: str
    prompt_cache_breakpoint: Any = None


class OutputText(msgspec.Struct, forbid_unknown_fields=True):
    """Text of the model's."""

    type: str
    text: str
    annotations: Any = None
    logprobs: Any = None


class Refusal(msgspec.Struct, forbid_unknown_fields=True):
    """A refusal of the model's."""

    type: str
    refusal: str
