"""The log probabilities of OpenAI's completions: four lists, and where each token begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.protocol.openai_shared import json_log_prob, token_name
from server.protocol.request import AnswerForm, TokenLogProb


def log_probs_json(tokens: Sequence[TokenLogProb], top: int, form: AnswerForm) -> dict[str, Any]:
    """OpenAI's `logprobs` of a completion; a prompt's first token has null for both."""
    return {
        "tokens": [_name(token, form) for token in tokens],
        "token_logprobs": [json_log_prob(token.log_prob) for token in tokens],
        "top_logprobs": [_top_json(token, top, form) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _top_json(token: TokenLogProb, top: int, form: AnswerForm) -> dict[str, float | None] | None:
    """The likeliest, and the chosen token wherever it stands."""
    if token.log_prob is None:
        return None
    likeliest = {_name(other, form): json_log_prob(other.log_prob) for other in token.top[:top]}
    return {**likeliest, _name(token, form): json_log_prob(token.log_prob)}


def _name(token: TokenLogProb, form: AnswerForm) -> str:
    """A token that is no text of its own is named by its bytes, as OpenAI does."""
    name = token_name(token, form)
    if "\N{REPLACEMENT CHARACTER}" not in name:
        return name
    try:
        return token.content.decode()
    except UnicodeDecodeError:
        return "bytes:" + repr(token.content)[2:-1]
