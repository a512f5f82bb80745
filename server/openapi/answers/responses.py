"""The response object, its items, and lists of them."""

from __future__ import annotations

from typing import Any, Literal

from server.openapi.answers.shared import Told

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class BriefToken(Told, kw_only=True):
    """A token, and the logarithm of its probability."""

    token: str
    logprob: float | None


class WholeToken(Told, kw_only=True):
    """The same, with the token's bytes."""

    token: str
    logprob: float | None
    bytes: list[int]


class ItemToken(Told, kw_only=True):
    """A token of an item, and those that were likeliest at its place."""

    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list[WholeToken]


class InputTextPart(Told, kw_only=True, tag_field="type", tag="input_text"):
    """Text that the model was given."""

    text: str


class OutputTextPart(Told, kw_only=True, tag_field="type", tag="output_text"):
    """Text that the model wrote; there are never annotations."""

    text: str
    annotations: list[Any]
    logprobs: list[ItemToken]


class RefusalPart(Told, kw_only=True, tag_field="type", tag="refusal"):
    """A refusal that the model was given as an earlier answer of its own."""

    refusal: str


class ReasoningPart(Told, kw_only=True, tag_field="type", tag="reasoning_text"):
    """What the model thought."""

    text: str


class SummaryPart(Told, kw_only=True, tag_field="type", tag="summary_text"):
    """A summary of reasoning, as it was given."""

    text: str


class MessageItem(Told, kw_only=True, tag_field="type", tag="message"):
    """What somebody says."""

    id: str
    status: ItemStatus
    role: Literal["user", "assistant", "system", "developer"]
    content: list[InputTextPart | OutputTextPart | RefusalPart]


class ReasoningItem(Told, kw_only=True, tag_field="type", tag="reasoning"):
    """What a model thinks."""

    id: str
    status: ItemStatus
    summary: list[SummaryPart]
    content: list[ReasoningPart]


class FunctionCallItem(Told, kw_only=True, tag_field="type", tag="function_call"):
    """A function that a model calls; `arguments` is JSON text."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(Told, kw_only=True, tag_field="type", tag="function_call_output"):
    """What a function gave back."""

    id: str
    status: ItemStatus
    call_id: str
    output: str | list[InputTextPart]


OutputItem = MessageItem | ReasoningItem | FunctionCallItem


class ResponseError(Told, kw_only=True):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Told, kw_only=True):
    """Why a response was cut."""

    reason: Literal["max_output_tokens"]


class InputTokensDetails(Told, kw_only=True):
    """Of the tokens that were read, those whose KV blocks were there already."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Told, kw_only=True):
    """Of the tokens that were written, those of the model's reasoning."""

    reasoning_tokens: int


class ResponseUsage(Told, kw_only=True):
    """How many tokens were read and written."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseReasoning(Told, kw_only=True):
    """What was asked of the model's reasoning."""

    effort: str | None
    summary: str | None


class ResponseText(Told, kw_only=True):
    """What form was asked for."""

    format: dict[str, Any]
    verbosity: str


class Response(Told, kw_only=True):
    """An answer, with what was asked for."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: ResponseReasoning
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float | None
    text: ResponseText
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    user: str | None


class DeletedResponse(Told, kw_only=True):
    """It isn't kept any more."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ItemList(Told, kw_only=True):
    """A page of a conversation's items; the ids are empty where there is none."""

    object: Literal["list"]
    data: list[MessageItem | ReasoningItem | FunctionCallItem | FunctionOutputItem]
    first_id: str
    last_id: str
    has_more: bool


class InputTokens(Told, kw_only=True):
    """How long the prompt of such a request is."""

    object: Literal["response.input_tokens"]
    input_tokens: int
