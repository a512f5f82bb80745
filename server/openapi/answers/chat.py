"""A chat's answers, whole and in chunks."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from server.openapi.answers.shared import CompletionUsage, PromptLogProbs, StopReason, Told

FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class TokenChance(Told, kw_only=True):
    """A token, the logarithm of its probability, and its bytes."""

    token: str
    logprob: float | None
    bytes: list[int]


class ChosenToken(Told, kw_only=True):
    """A token of the answer, and those that were likeliest at its place."""

    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list[TokenChance]


class ChatLogProbs(Told, kw_only=True):
    """How likely the answer's tokens were."""

    content: list[ChosenToken]
    refusal: None


class FunctionCalled(Told, kw_only=True):
    """`arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(Told, kw_only=True):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: FunctionCalled


class AssistantMessage(Told, kw_only=True):
    """What the model says, thinks (by two names) and calls."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: FunctionCalled | UnsetType = UNSET


class ChatChoice(Told, kw_only=True):
    """One of the answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason
    stop_reason: StopReason
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(Told, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    service_tier: Literal["default"] | UnsetType = UNSET
    prompt_logprobs: PromptLogProbs | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class FunctionDelta(Told, kw_only=True):
    """A call's name, which comes once, or more of its arguments."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallDelta(Told, kw_only=True):
    """More of the call number `index`; id and type come once, with its name."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class AssistantDelta(Told, kw_only=True):
    """What is new in a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET


class ChatChoiceDelta(Told, kw_only=True):
    """What is new in one of the answers; the last has the finish reason."""

    index: int
    delta: AssistantDelta
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason | None
    stop_reason: StopReason | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletionChunk(Told, kw_only=True):
    """One event of a streamed chat; after the last comes `[DONE]`, in the place of JSON.

    An error in the middle is an event of the shape ErrorAnswer. The `usage` is null until the end,
    where it comes with no choices, unless it is asked for with each chunk.
    """

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoiceDelta]
    service_tier: Literal["default"] | UnsetType = UNSET
    usage: CompletionUsage | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
