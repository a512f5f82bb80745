"""Every parameter of /v1/responses, OpenAI's and vLLM's, and its fate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.protocol.parameters import ENGINE, HONOURED, METADATA, TEXT_ONLY, Fate, Refused

_NO_SERVICE: Final = "it is a service of OpenAI's own"

RESPONSES: Mapping[str, Fate] = {
    # OpenAI
    "model": HONOURED,
    "input": HONOURED,
    "instructions": HONOURED,
    "previous_response_id": HONOURED,
    "store": HONOURED,
    "max_output_tokens": HONOURED,
    "temperature": HONOURED,
    "top_p": HONOURED,
    "top_logprobs": HONOURED,
    "include": HONOURED,
    "tools": HONOURED,
    "tool_choice": HONOURED,
    "parallel_tool_calls": HONOURED,
    "text": HONOURED,
    "reasoning": HONOURED,
    "truncation": HONOURED,
    "stream": HONOURED,
    "stream_options": HONOURED,
    "prompt_cache_options": HONOURED,
    # Of built-in tools, of which there are none; told again in the answer, as the next ones are.
    "max_tool_calls": HONOURED,
    "metadata": HONOURED,
    "user": HONOURED,
    "safety_identifier": HONOURED,
    "prompt_cache_key": HONOURED,
    "prompt_cache_retention": HONOURED,
    "service_tier": METADATA,
    "background": Refused(reason="answers aren't written in the background", neutral=(False,)),
    "background_options": Refused(reason="answers aren't written in the background"),
    "conversation": Refused(reason="go on from an answer with 'previous_response_id'"),
    "prompt": Refused(reason="prompt templates are kept by OpenAI: send 'instructions'"),
    "context_management": Refused(reason="nothing is compacted: see 'truncation'", neutral=([],)),
    "moderation": Refused(reason=_NO_SERVICE),
    "access_programs": Refused(reason=_NO_SERVICE),
    "image": Refused(reason=TEXT_ONLY, neutral=({},)),
    # vLLM
    "top_k": HONOURED,
    "seed": HONOURED,
    "stop": HONOURED,
    "stop_token_ids": HONOURED,
    "frequency_penalty": HONOURED,
    "presence_penalty": HONOURED,
    "repetition_penalty": HONOURED,
    "logit_bias": HONOURED,
    "min_tokens": HONOURED,
    "ignore_eos": HONOURED,
    "include_stop_str_in_output": HONOURED,
    "skip_special_tokens": HONOURED,
    "bad_words": HONOURED,
    "structured_outputs": HONOURED,
    "chat_template_kwargs": HONOURED,
    "thinking_token_budget": HONOURED,
    "request_id": METADATA,
    "min_p": Refused(reason=ENGINE, neutral=(0, 0.0)),
    "priority": Refused(reason=ENGINE, neutral=(0,)),
    "cache_salt": Refused(reason=ENGINE),
    "vllm_xargs": Refused(reason=ENGINE, neutral=({},)),
    "previous_input_messages": Refused(reason="send them in 'input'", neutral=([],)),
    "enable_response_messages": Refused(reason="the prompt isn't told", neutral=(False,)),
    "mm_processor_kwargs": Refused(reason=TEXT_ONLY, neutral=({},)),
}

_RUN_BY_OPENAI: Final = "OpenAI runs it itself; describe a function of yours instead"

OTHER_TOOLS: Mapping[str, str] = {
    "apply_patch": _RUN_BY_OPENAI,
    "code_interpreter": _RUN_BY_OPENAI,
    "computer": _RUN_BY_OPENAI,
    "computer_use_preview": _RUN_BY_OPENAI,
    "custom": "its input is free text; describe a function of one string instead",
    "file_search": _RUN_BY_OPENAI,
    "image_generation": _RUN_BY_OPENAI,
    "local_shell": _RUN_BY_OPENAI,
    "mcp": _RUN_BY_OPENAI,
    "namespace": "give its functions one by one",
    "programmatic_tool_calling": _RUN_BY_OPENAI,
    "shell": _RUN_BY_OPENAI,
    "tool_search": _RUN_BY_OPENAI,
    "web_search": _RUN_BY_OPENAI,
    "web_search_2025_08_26": _RUN_BY_OPENAI,
    "web_search_preview": _RUN_BY_OPENAI,
    "web_search_preview_2025_03_11": _RUN_BY_OPENAI,
}
"""OpenAI's types of tools besides "function", and why each can't be used."""

INCLUDE: Mapping[str, Fate] = {
    "message.output_text.logprobs": HONOURED,
    # Reasoning is told openly, so there is something to send back: the items as they are.
    "reasoning.encrypted_content": METADATA,
    # Of items that no answer has: they ask for nothing.
    "file_search_call.results": METADATA,
    "web_search_call.results": METADATA,
    "web_search_call.action.sources": METADATA,
    "message.input_image.image_url": METADATA,
    "computer_call_output.output.image_url": METADATA,
    "code_interpreter_call.outputs": METADATA,
}
"""The values of `include`."""
