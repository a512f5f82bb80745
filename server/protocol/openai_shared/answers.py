"""What OpenAI's answers have in common: heads, usage, log probabilities."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from server.protocol.request import AnswerForm, AnswerHead, TokenLogProb, Usage
from server.version import own_version

_NEVER_LOG_PROB = -9999.0
"""What OpenAI sends for a probability of zero, whose logarithm JSON can't say."""
_FINGERPRINT_CHARS = 10


def head_json(head: AnswerHead, kind: str, form: AnswerForm | None = None) -> dict[str, Any]:
    """What every answer and every chunk begins with; `kind` is OpenAI's `object`."""
    tier = {"service_tier": form.service_tier} if form and form.service_tier else {}
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "system_fingerprint": fingerprint(head.model),
        **tier,
    }


@lru_cache(maxsize=256)
def fingerprint(model: str) -> str:
    """OpenAI's `system_fingerprint`: another where the model or trtbuild is another."""
    digest = hashlib.sha256(f"{own_version()}\n{model}".encode()).hexdigest()
    return f"fp_{digest[:_FINGERPRINT_CHARS]}"


def usage_json(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def json_log_prob(log_prob: float | None) -> float | None:
    """A log probability that JSON can say."""
    if log_prob is None or math.isfinite(log_prob):
        return log_prob
    return _NEVER_LOG_PROB


def token_name(token: TokenLogProb, form: AnswerForm) -> str:
    """What log probabilities call a token: its text, or vLLM's name for its id."""
    return f"token_id:{token.token_id}" if form.tokens_as_ids else token.text


def prompt_log_probs_json(
    tokens: Sequence[TokenLogProb], form: AnswerForm
) -> list[dict[str, dict[str, Any]] | None]:
    """vLLM's `prompt_logprobs`: per token, by id, its own and the likeliest there; null first.

    A token's `rank` counts from 1, and is null where it is not among the likeliest.
    """
    return [None if token.log_prob is None else _ranked(token, form) for token in tokens]


def _ranked(token: TokenLogProb, form: AnswerForm) -> dict[str, dict[str, Any]]:
    ranked = {
        str(other.token_id): _ranked_entry(other, rank, form)
        for rank, other in enumerate(token.top, start=1)
    }
    ranked.setdefault(str(token.token_id), _ranked_entry(token, None, form))
    return ranked


def _ranked_entry(token: TokenLogProb, rank: int | None, form: AnswerForm) -> dict[str, Any]:
    return {
        "logprob": json_log_prob(token.log_prob),
        "rank": rank,
        "decoded_token": token_name(token, form),
    }


def without_none(content: dict[str, Any]) -> dict[str, Any]:
    """`content` without the keys whose value is None."""
    return {key: value for key, value in content.items() if value is not None}
