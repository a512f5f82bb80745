"""A completion's answers, whole and in chunks; embeddings; tokens."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from server.openapi.answers.shared import CompletionUsage, PromptLogProbs, StopReason, Told


class CompletionLogProbs(Told, kw_only=True):
    """Per token: its name, log probability, the likeliest at its place, and where it begins."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None]
    text_offset: list[int]


class CompletionChoice(Told, kw_only=True):
    """One of the answers."""

    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: Literal["stop", "length"]
    stop_reason: StopReason
    prompt_logprobs: PromptLogProbs | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class Completion(Told, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class CompletionChoiceDelta(Told, kw_only=True):
    """What is new in one of the answers; the last has the finish reason."""

    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: Literal["stop", "length"] | None
    stop_reason: StopReason | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class CompletionChunk(Told, kw_only=True):
    """One event of a streamed completion; otherwise as ChatCompletionChunk."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoiceDelta]
    usage: CompletionUsage | UnsetType | None = UNSET


class EmbeddingEntry(Told, kw_only=True):
    """One input's: numbers, or their little-endian float32 bytes in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Told, kw_only=True):
    """How many tokens were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Told, kw_only=True):
    """One entry an input, in their order."""

    object: Literal["list"]
    data: list[EmbeddingEntry]
    model: str
    usage: EmbeddingUsage


class TokenIds(Told, kw_only=True):
    """A prompt's tokens; `token_strs` where it was asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class TokenSpan(Told, kw_only=True):
    """A token, with what it stands for and its place in the text's UTF-8, in bytes."""

    id: int
    text: str
    start: int
    stop: int


class TokensText(Told, kw_only=True):
    """What tokens say, by two names."""

    prompt: str
    text: str
