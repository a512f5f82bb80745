"""What several answers have in common: errors, usage, log probabilities, models."""

from __future__ import annotations

from typing import Literal

import msgspec


class Told(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An object that has these fields and no others."""


class ErrorDetails(Told, kw_only=True):
    """What was wrong; `param` is the parameter that was to blame."""

    message: str
    type: Literal[
        "authentication_error",
        "invalid_request_error",
        "permission_error",
        "rate_limit_error",
        "server_error",
    ]
    param: str | None
    code: str | None


class ErrorAnswer(Told, kw_only=True):
    """OpenAI's shape of an error."""

    error: ErrorDetails


class PromptTokensDetails(Told, kw_only=True):
    """Of the prompt's tokens, those whose KV blocks were there already."""

    cached_tokens: int


class CompletionTokensDetails(Told, kw_only=True):
    """Of the answer's tokens, those of the model's reasoning."""

    reasoning_tokens: int


class CompletionUsage(Told, kw_only=True):
    """How many tokens were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class RankedToken(Told, kw_only=True):
    """A token at a prompt's place; `rank` counts from 1, and is null beyond those told."""

    logprob: float | None
    rank: int | None
    decoded_token: str


PromptLogProbs = list[dict[str, RankedToken] | None]
"""Per token of the prompt, by id: its own and the likeliest there; null first."""
StopReason = str | int | None
"""The stop string or id that ended the answer."""


class ModelEntry(Told, kw_only=True):
    """A model, an alias of one, or an adapter, whose `parent` is its model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int


class ModelList(Told, kw_only=True):
    """What the request's key may use."""

    object: Literal["list"]
    data: list[ModelEntry]


class Version(Told, kw_only=True):
    """Who answers."""

    name: str
    version: str


class Load(Told, kw_only=True):
    """Requests that run or wait."""

    server_load: int


class ReloadedKeys(Told, kw_only=True):
    """How many keys there are now."""

    keys: int
