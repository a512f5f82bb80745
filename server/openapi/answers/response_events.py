"""The events of a streamed response."""

from __future__ import annotations

from typing import Literal

from server.openapi.answers.responses import (
    BriefToken,
    OutputItem,
    OutputTextPart,
    ReasoningPart,
    Response,
)
from server.openapi.answers.shared import Told


class EventToken(Told, kw_only=True):
    """A token, and those that were likeliest at its place."""

    token: str
    logprob: float | None
    top_logprobs: list[BriefToken]


class ResponseStateEvent(Told, kw_only=True):
    """The response as it is now; the last of these events ends the stream."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: Response


class OutputItemEvent(Told, kw_only=True):
    """An item is begun, or is whole."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class ContentPartEvent(Told, kw_only=True):
    """A part of an item is begun, or is whole."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: OutputTextPart | ReasoningPart


class OutputTextDeltaEvent(Told, kw_only=True):
    """More text."""

    type: Literal["response.output_text.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[EventToken]


class OutputTextDoneEvent(Told, kw_only=True):
    """All of a part's text."""

    type: Literal["response.output_text.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[EventToken]


class ReasoningDeltaEvent(Told, kw_only=True):
    """More reasoning."""

    type: Literal["response.reasoning_text.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ReasoningDoneEvent(Told, kw_only=True):
    """All of an item's reasoning."""

    type: Literal["response.reasoning_text.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str


class ArgumentsDeltaEvent(Told, kw_only=True):
    """More of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(Told, kw_only=True):
    """All of a call's arguments."""

    type: Literal["response.function_call_arguments.done"]
    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


class ErrorEvent(Told, kw_only=True):
    """What went wrong; the failed response follows."""

    type: Literal["error"]
    sequence_number: int
    code: str | None
    message: str
    param: str | None


EVENTS: tuple[type[Told], ...] = (
    ResponseStateEvent,
    OutputItemEvent,
    ContentPartEvent,
    OutputTextDeltaEvent,
    OutputTextDoneEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ErrorEvent,
)
"""One each time: their types tell them apart."""
