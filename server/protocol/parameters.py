"""Every request parameter of OpenAI's text endpoints, and of vLLM's extensions, and its fate.

Nothing a client asks for is silently ignored: a parameter is honoured, or is metadata that
changes no answer, or is refused unless its value asks for nothing. Names that are in no table
are refused. Sources: OpenAI's specification 2.3.0 and its package 3.57, vLLM 0.33's protocol and
what came to it until November 2026, and, for some names, trtllm-serve's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENGINE: Final = "the engine can't do it"
OWN_TEMPLATE: Final = "the model's own template is used"
TEXT_ONLY: Final = "the model reads and writes text only"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Refused for `reason`, unless its value is null or one of `neutral`, which ask for nothing."""

    reason: str
    neutral: tuple[Any, ...] = ()


class Honoured:
    """Acted on: a field of the dialect's request struct."""


class TemplateVariable(Honoured):
    """Given to the model's chat template; refused by the model where that doesn't mention it."""


class Metadata:
    """Accepted and not acted on, as it changes no answer."""


Fate = Honoured | Metadata | Refused

HONOURED: Final = Honoured()
TEMPLATE_VARIABLE: Final = TemplateVariable()
METADATA: Final = Metadata()

_SHARED: Mapping[str, Fate] = {
    # OpenAI
    "model": HONOURED,
    "max_tokens": HONOURED,
    "n": HONOURED,
    "best_of": HONOURED,
    "temperature": HONOURED,
    "top_p": HONOURED,
    "seed": HONOURED,
    "stop": HONOURED,
    "frequency_penalty": HONOURED,
    "presence_penalty": HONOURED,
    "logit_bias": HONOURED,
    "logprobs": HONOURED,
    "stream": HONOURED,
    "stream_options": HONOURED,
    "response_format": HONOURED,
    "user": METADATA,
    # vLLM
    "echo": HONOURED,
    "top_k": HONOURED,
    "repetition_penalty": HONOURED,
    "min_tokens": HONOURED,
    "ignore_eos": HONOURED,
    "stop_token_ids": HONOURED,
    "include_stop_str_in_output": HONOURED,
    "bad_words": HONOURED,
    "skip_special_tokens": HONOURED,
    "add_special_tokens": HONOURED,
    "truncate_prompt_tokens": HONOURED,
    "prompt_logprobs": HONOURED,
    "return_token_ids": HONOURED,
    "return_tokens_as_token_ids": HONOURED,
    "use_beam_search": HONOURED,
    "length_penalty": HONOURED,
    "early_stopping": HONOURED,
    "structured_outputs": HONOURED,
    "guided_json": HONOURED,
    "guided_regex": HONOURED,
    "guided_choice": HONOURED,
    "guided_grammar": HONOURED,
    "request_id": METADATA,
    "session_id": METADATA,
    "spaces_between_special_tokens": Refused(
        reason="text is what the tokens say, byte by byte", neutral=(True,)
    ),
    "min_p": Refused(reason=ENGINE, neutral=(0, 0.0)),
    "typical_p": Refused(reason=ENGINE, neutral=(1, 1.0)),
    "top_p_min": Refused(reason=ENGINE, neutral=(0, 0.0)),
    "allowed_token_ids": Refused(reason=ENGINE),
    "guided_decoding_backend": Refused(reason="the engine was built with its own"),
    "guided_whitespace_pattern": Refused(reason=ENGINE),
    "structural_tag": Refused(reason=ENGINE),
    "priority": Refused(reason=ENGINE, neutral=(0, 0.0)),
    "cache_salt": Refused(reason=ENGINE),
    "lora_request": Refused(reason="an adapter is a model of its own: name it as 'model'"),
    "stream_interval": Refused(reason="text is sent as it comes", neutral=(1,)),
    "logits_processors": Refused(reason=ENGINE, neutral=([],)),
    "kv_transfer_params": Refused(reason=ENGINE),
    "ec_transfer_params": Refused(reason=ENGINE),
    "repetition_detection": Refused(reason=ENGINE),
    "watermarking": Refused(reason=ENGINE, neutral=(False,)),
    "logprob_token_ids": Refused(reason=ENGINE),
    "routed_experts_prompt_start": Refused(reason=ENGINE, neutral=(0,)),
    "vllm_xargs": Refused(reason=ENGINE, neutral=({},)),
    "truncation_side": Refused(reason="the last tokens of a prompt are kept", neutral=("left",)),
    "return_token_offsets": Refused(
        reason="/tokenize tells them, to those who send 'inputs'", neutral=(False,)
    ),
    "return_mm_kwargs": Refused(reason=TEXT_ONLY, neutral=(True, False)),
}

CHAT: Mapping[str, Fate] = {
    **_SHARED,
    # OpenAI
    "messages": HONOURED,
    "max_completion_tokens": HONOURED,
    "top_logprobs": HONOURED,
    "tools": HONOURED,
    "tool_choice": HONOURED,
    "parallel_tool_calls": HONOURED,
    "functions": HONOURED,
    "function_call": HONOURED,
    "reasoning_effort": TEMPLATE_VARIABLE,
    "service_tier": HONOURED,
    "metadata": METADATA,
    "store": METADATA,
    "safety_identifier": METADATA,
    "prompt_cache_key": METADATA,
    "prompt_cache_options": METADATA,
    "prompt_cache_retention": METADATA,
    "modalities": Refused(reason=TEXT_ONLY, neutral=(["text"],)),
    "audio": Refused(reason=TEXT_ONLY),
    "prediction": Refused(reason=ENGINE),
    "moderation": Refused(reason="nothing here judges texts"),
    "web_search_options": Refused(reason="nothing here searches the web"),
    "verbosity": Refused(reason=ENGINE, neutral=("medium",)),
    # vLLM
    "add_generation_prompt": HONOURED,
    "continue_final_message": HONOURED,
    "chat_template_kwargs": HONOURED,
    "documents": TEMPLATE_VARIABLE,
    "include_reasoning": HONOURED,
    "thinking_token_budget": HONOURED,
    "chat_template": Refused(reason=OWN_TEMPLATE),
    "return_prompt_text": Refused(reason="the prompt isn't told", neutral=(False,)),
    "mm_processor_kwargs": Refused(reason=TEXT_ONLY),
    "media_io_kwargs": Refused(reason=TEXT_ONLY),
}

COMPLETIONS: Mapping[str, Fate] = {
    **_SHARED,
    "prompt": HONOURED,
    "suffix": Refused(reason="the model doesn't fill in the middle", neutral=("",)),
    "prompt_embeds": Refused(reason=ENGINE),
    "thinking_token_budget": Refused(reason="what is thought is told of in chats", neutral=(-1,)),
}

TOKENIZE: Mapping[str, Fate] = {
    "model": HONOURED,
    "prompt": HONOURED,
    "messages": HONOURED,
    "tools": HONOURED,
    "documents": TEMPLATE_VARIABLE,
    "add_special_tokens": HONOURED,
    "add_generation_prompt": HONOURED,
    "continue_final_message": HONOURED,
    "chat_template_kwargs": HONOURED,
    "return_token_strs": HONOURED,
    "chat_template": Refused(reason=OWN_TEMPLATE),
    "mm_processor_kwargs": Refused(reason=TEXT_ONLY),
    "media_io_kwargs": Refused(reason=TEXT_ONLY),
    # TGI
    "inputs": HONOURED,
    "parameters": METADATA,
    "stream": METADATA,
}
"""vLLM's and, by `inputs`, TGI's /tokenize: TGI's body is that of its /generate, of whose
parameters none changes a token."""

DETOKENIZE: Mapping[str, Fate] = {
    "model": HONOURED,
    "tokens": HONOURED,
    "skip_special_tokens": HONOURED,
}

TEMPLATE_VARIABLES: Final = frozenset(
    name for name, fate in CHAT.items() if isinstance(fate, TemplateVariable)
)
"""Names in ChatPrompt.variables that were parameters: to be refused, by that name, where the
model's template doesn't mention them."""
