"""The bounds that parameters are checked against beyond their types, for the document.

The checks themselves are the dialects'; a test walks this table against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.protocol.openai_chat.body import MAX_DOCUMENTS
from server.protocol.openai_chat.messages import MAX_MESSAGES
from server.protocol.openai_shared import MAX_CHOICES, MAX_LOG_PROBS, MAX_TOOLS
from server.protocol.openai_shared.guides import MAX_ALTERNATIVES, MAX_GUIDE_CHARS
from server.protocol.openai_shared.sampling import (
    LENGTH_PENALTY_RANGE,
    MAX_BAD_WORDS,
    MAX_BIASES,
    MAX_STOP_CHARS,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
    MAX_TOKEN_ID,
    REPETITION_PENALTY_RANGE,
)

Facets = Mapping[str, Any]
"""Words of JSON Schema, and their values."""


def _between(least: float, most: float) -> Facets:
    return {"minimum": least, "maximum": most}


BOUNDS: Final[Mapping[str, Facets]] = {
    "messages": {"minItems": 1, "maxItems": MAX_MESSAGES},
    "input": {"minItems": 1},
    "prompt": {"minItems": 1},
    "tools": {"maxItems": MAX_TOOLS},
    "functions": {"minItems": 1, "maxItems": MAX_TOOLS},
    "documents": {"maxItems": MAX_DOCUMENTS},
    "max_completion_tokens": {"minimum": 1, "maximum": MAX_TOKEN_ID},
    "max_output_tokens": {"minimum": 1, "maximum": MAX_TOKEN_ID},
    "max_tool_calls": {"minimum": 1},
    "min_tokens": _between(0, MAX_TOKEN_ID),
    "n": _between(1, MAX_CHOICES),
    "best_of": _between(1, MAX_CHOICES),
    "temperature": _between(0, 2),
    "top_p": _between(0, 1),
    "top_k": _between(-1, MAX_TOKEN_ID),
    "seed": _between(-(2**63), 2**64 - 1),
    "presence_penalty": _between(-2, 2),
    "frequency_penalty": _between(-2, 2),
    "repetition_penalty": _between(*REPETITION_PENALTY_RANGE),
    "length_penalty": _between(*LENGTH_PENALTY_RANGE),
    "logprobs": _between(0, MAX_LOG_PROBS),
    "top_logprobs": _between(0, MAX_LOG_PROBS),
    "prompt_logprobs": _between(0, MAX_LOG_PROBS),
    "truncate_prompt_tokens": {**_between(-1, MAX_TOKEN_ID), "not": {"const": 0}},
    "thinking_token_budget": _between(-1, MAX_TOKEN_ID),
    "dimensions": {"minimum": 1},
    "stop": {"maxItems": MAX_STOPS, "minLength": 1, "maxLength": MAX_STOP_CHARS},
    "stop_token_ids": {"maxItems": MAX_STOP_TOKEN_IDS},
    "bad_words": {"maxItems": MAX_BAD_WORDS},
    "logit_bias": {"maxProperties": MAX_BIASES, "propertyNames": {"pattern": "^-?[0-9]+$"}},
    "guided_choice": {"minItems": 1, "maxItems": MAX_ALTERNATIVES},
    "guided_regex": {"minLength": 1, "maxLength": MAX_GUIDE_CHARS},
    "guided_grammar": {"minLength": 1, "maxLength": MAX_GUIDE_CHARS},
}
"""By parameter, whatever the dialect; each holds for the types that it can be said of."""
