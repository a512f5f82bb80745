"""How likely tokens were, as /v1/responses tells it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.protocol.openai_shared import json_log_prob
from server.protocol.request import TokenLogProb


def whole_log_probs(tokens: Iterable[TokenLogProb]) -> list[dict[str, Any]]:
    """`logprobs` of a part of an item."""
    return [{**_whole(token), "top_logprobs": [_whole(t) for t in token.top]} for token in tokens]


def event_log_probs(tokens: Iterable[TokenLogProb]) -> list[dict[str, Any]]:
    """`logprobs` of an event, which don't tell bytes."""
    return [{**_brief(token), "top_logprobs": [_brief(t) for t in token.top]} for token in tokens]


def _whole(token: TokenLogProb) -> dict[str, Any]:
    return {**_brief(token), "bytes": list(token.content)}


def _brief(token: TokenLogProb) -> dict[str, Any]:
    return {"token": token.text, "logprob": json_log_prob(token.log_prob)}
