"""A completion request's body: every parameter checked, and what it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from server.protocol.openai_shared import MAX_LOG_PROBS, SharedParameters, text_request
from server.protocol.parameters import COMPLETIONS
from server.protocol.request import Prompt, TextPrompt, TextRequest, TokenPrompt
from server.protocol.validation import check_range, decode, require

DEFAULT_MAX_TOKENS = 16
"""OpenAI's and vLLM's."""


class CompletionRequest(SharedParameters, kw_only=True):
    """The honoured parameters of a completion request."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None


_decoder = msgspec.json.Decoder(CompletionRequest)


def parse(body: bytes) -> TextRequest:
    """The request in `body`. Raises InvalidRequestError."""
    request = decode(body, _decoder, COMPLETIONS)
    check_range("logprobs", request.logprobs, 0, MAX_LOG_PROBS)
    return text_request(
        request,
        prompts=prompts(request.prompt, add_special_tokens=request.add_special_tokens is not False),
        prompt_param="prompt",
        max_tokens=DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        fewest_tokens=0,
        log_probs=request.logprobs,
        echo=bool(request.echo),
    )


def prompts(
    prompt: str | Sequence[str | int | list[int]], *, add_special_tokens: bool
) -> list[Prompt]:
    """A text, several, token ids, or several lists of them. Raises InvalidRequestError."""
    entries: list[Any] = [prompt] if isinstance(prompt, str) else list(prompt)
    require(bool(entries), "[] is too short - 'prompt'", param="prompt")
    kinds = {type(entry) for entry in entries}
    require(len(kinds) == 1, "strings, ids and lists can't be mixed - 'prompt'", param="prompt")
    if kinds == {str}:
        return [TextPrompt(text=text, add_special_tokens=add_special_tokens) for text in entries]
    return [TokenPrompt(ids=ids) for ids in ([entries] if kinds == {int} else entries)]
