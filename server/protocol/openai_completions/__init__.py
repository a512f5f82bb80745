"""OpenAI's (legacy) completions: bytes to a TextRequest, events to bytes."""

from server.protocol.openai_completions.answers import CompletionStream, render
from server.protocol.openai_completions.body import DEFAULT_MAX_TOKENS, CompletionRequest, parse

ID_PREFIX = "cmpl-"

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "ID_PREFIX",
    "CompletionRequest",
    "CompletionStream",
    "parse",
    "render",
]
