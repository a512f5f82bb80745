"""What OpenAI's dialects have in common: what the three that write text ask, and what they tell."""

from server.protocol.openai_shared.answers import (
    fingerprint,
    head_json,
    json_log_prob,
    prompt_log_probs_json,
    token_name,
    usage_json,
    without_none,
)
from server.protocol.openai_shared.body import ReasoningEffort, SharedParameters, StreamOptions
from server.protocol.openai_shared.chunks import Chunks
from server.protocol.openai_shared.functions import MAX_TOOLS, checked_functions
from server.protocol.openai_shared.guides import (
    ResponseFormat,
    StructuredOutputs,
    check_room_for_calls,
    guide,
)
from server.protocol.openai_shared.sampling import limits, sampling, thinking_budget
from server.protocol.openai_shared.text_request import (
    MAX_CHOICES,
    MAX_LOG_PROBS,
    answer_form,
    check_stream_options,
    text_request,
)

__all__ = [
    "MAX_CHOICES",
    "MAX_LOG_PROBS",
    "MAX_TOOLS",
    "Chunks",
    "ReasoningEffort",
    "ResponseFormat",
    "SharedParameters",
    "StreamOptions",
    "StructuredOutputs",
    "answer_form",
    "check_room_for_calls",
    "check_stream_options",
    "checked_functions",
    "fingerprint",
    "guide",
    "head_json",
    "json_log_prob",
    "limits",
    "prompt_log_probs_json",
    "sampling",
    "text_request",
    "thinking_budget",
    "token_name",
    "usage_json",
    "without_none",
]
