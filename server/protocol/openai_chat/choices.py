"""What a chat's choices say in a stream and in a whole answer alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.protocol.openai_shared import json_log_prob, token_name
from server.protocol.request import AnswerForm, TextEvent, TokenLogProb


def log_probs_json(tokens: Sequence[TokenLogProb], top: int, form: AnswerForm) -> dict[str, Any]:
    """OpenAI's `logprobs` of a chat, with up to `top` alternatives for each token."""
    content = [
        {
            **_token_json(token, form),
            "top_logprobs": [_token_json(other, form) for other in token.top[:top]],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def finish_reason(choice: TextEvent, form: AnswerForm) -> str | None:
    """OpenAI's word for why it ended."""
    if form.deprecated_calls and choice.finish_reason == "tool_calls":
        return "function_call"
    return choice.finish_reason


def _token_json(token: TokenLogProb, form: AnswerForm) -> dict[str, Any]:
    return {
        "token": token_name(token, form),
        "logprob": json_log_prob(token.log_prob),
        "bytes": list(token.content),
    }
