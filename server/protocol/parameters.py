"""Every request parameter of OpenAI's text endpoints, and of vLLM's extensions, and its fate.

Nothing a client asks for is silently ignored: a parameter is honoured, or is metadata that
changes no answer, or is refused unless its value asks for nothing. Names that are in no table
are refused. Sources: OpenAI's specification 2.3.0 and vLLM 0.33's protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

NOT_YET: Final = "this endpoint doesn't support it"
ENGINE: Final = "the engine can't do it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Refused for `reason`, unless its value is null or one of `neutral`, which ask for nothing."""

    reason: str
    neutral: tuple[Any, ...] = ()


class Honoured:
    """Acted on: a field of the dialect's request struct."""


class Metadata:
    """Accepted and not acted on, as it changes no answer."""


Fate = Honoured | Metadata | Refused

HONOURED: Final = Honoured()
METADATA: Final = Metadata()

_SHARED: Mapping[str, Fate] = {
    # OpenAI
    "model": HONOURED,
    "max_tokens": HONOURED,
    "temperature": HONOURED,
    "top_p": HONOURED,
    "seed": HONOURED,
    "stop": HONOURED,
    "frequency_penalty": HONOURED,
    "presence_penalty": HONOURED,
    "stream": HONOURED,
    "stream_options": HONOURED,
    "logprobs": HONOURED,
    "user": METADATA,
    "n": Refused(reason=NOT_YET, neutral=(1,)),
    "best_of": Refused(reason=NOT_YET, neutral=(1,)),
    "logit_bias": Refused(reason=NOT_YET, neutral=({},)),
    # vLLM
    "top_k": HONOURED,
    "repetition_penalty": HONOURED,
    "min_tokens": HONOURED,
    "ignore_eos": HONOURED,
    "stop_token_ids": HONOURED,
    "include_stop_str_in_output": HONOURED,
    "skip_special_tokens": HONOURED,
    "add_special_tokens": HONOURED,
    "request_id": METADATA,
    "session_id": METADATA,
    "min_p": Refused(reason=ENGINE, neutral=(0, 0.0)),
    "typical_p": Refused(reason=ENGINE, neutral=(1, 1.0)),
    "use_beam_search": Refused(reason=NOT_YET, neutral=(False,)),
    "length_penalty": Refused(reason=NOT_YET, neutral=(1, 1.0)),
    "early_stopping": Refused(reason=NOT_YET, neutral=(False,)),
    "bad_words": Refused(reason=NOT_YET, neutral=([],)),
    "allowed_token_ids": Refused(reason=ENGINE),
    "prompt_logprobs": Refused(reason=NOT_YET),
    "truncate_prompt_tokens": Refused(reason=NOT_YET),
    "spaces_between_special_tokens": Refused(reason=NOT_YET, neutral=(True,)),
    "structured_outputs": Refused(reason=NOT_YET),
    "guided_json": Refused(reason=NOT_YET),
    "guided_regex": Refused(reason=NOT_YET),
    "guided_choice": Refused(reason=NOT_YET),
    "guided_grammar": Refused(reason=NOT_YET),
    "priority": Refused(reason=ENGINE, neutral=(0,)),
    "cache_salt": Refused(reason=ENGINE),
    "return_token_ids": Refused(reason=NOT_YET, neutral=(False,)),
    "return_tokens_as_token_ids": Refused(reason=NOT_YET, neutral=(False,)),
    "logits_processors": Refused(reason=ENGINE, neutral=([],)),
}

_TEXT_FORMAT: Final = {"type": "text"}

CHAT: Mapping[str, Fate] = {
    **_SHARED,
    # OpenAI
    "messages": HONOURED,
    "max_completion_tokens": HONOURED,
    "metadata": METADATA,
    "store": METADATA,
    "service_tier": METADATA,
    "safety_identifier": METADATA,
    "prompt_cache_key": METADATA,
    "prompt_cache_options": METADATA,
    "prompt_cache_retention": METADATA,
    "top_logprobs": Refused(reason="only the chosen token's is known", neutral=(0,)),
    "response_format": Refused(reason=NOT_YET, neutral=(_TEXT_FORMAT,)),
    "tools": Refused(reason=NOT_YET, neutral=([],)),
    "tool_choice": Refused(reason=NOT_YET, neutral=("none", "auto")),
    "parallel_tool_calls": Refused(reason=NOT_YET, neutral=(True, False)),
    "functions": Refused(reason="it is deprecated, and tools aren't supported", neutral=([],)),
    "function_call": Refused(reason="it is deprecated", neutral=("none", "auto")),
    "modalities": Refused(reason="the model writes text only", neutral=(["text"],)),
    "audio": Refused(reason="the model writes text only"),
    "prediction": Refused(reason=ENGINE),
    "moderation": Refused(reason=NOT_YET),
    "web_search_options": Refused(reason=NOT_YET),
    "reasoning_effort": Refused(reason="templates differ: use chat_template_kwargs"),
    "verbosity": Refused(reason=ENGINE, neutral=("medium",)),
    # vLLM
    "add_generation_prompt": HONOURED,
    "continue_final_message": HONOURED,
    "chat_template_kwargs": HONOURED,
    "chat_template": Refused(reason="the model's own template is used"),
    "documents": Refused(reason=NOT_YET, neutral=([],)),
    "echo": Refused(reason=NOT_YET, neutral=(False,)),
    "include_reasoning": Refused(reason=NOT_YET, neutral=(True,)),
    "thinking_token_budget": Refused(reason=NOT_YET),
}

COMPLETIONS: Mapping[str, Fate] = {
    **_SHARED,
    "prompt": HONOURED,
    "echo": Refused(reason=NOT_YET, neutral=(False,)),
    "suffix": Refused(reason="the model doesn't fill in the middle", neutral=("",)),
    "response_format": Refused(reason=NOT_YET, neutral=(_TEXT_FORMAT,)),
    "prompt_embeds": Refused(reason=ENGINE),
}
