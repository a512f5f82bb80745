"""The body of POST /v1/responses, and what is asked of a model by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.backend.base import Guide
from server.protocol.openai_chat.body import template_variables
from server.protocol.openai_shared import (
    check_room_for_calls,
    guide,
    limits,
    sampling,
    thinking_budget,
)
from server.protocol.request import ChatPrompt, Limits, Sampling, TextRequest
from server.protocol.responses.body import ResponsesRequest, read_body
from server.protocol.responses.form import read_format, read_reasoning
from server.protocol.responses.input import Reference, read_input
from server.protocol.responses.items import Item
from server.protocol.responses.messages import chat_messages
from server.protocol.responses.tools import Tools, read_tools
from server.protocol.validation import require

PROMPT_PARAM: Final = "input"
_LOG_PROBS: Final = "message.output_text.logprobs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One request, read and checked: all but what its references stand for.

    `store` None leaves it to the server. `echo` is what the response tells again of the request.
    """

    model: str | None
    items: Sequence[Item | Reference]
    instructions: str | None
    previous_response_id: str | None
    store: bool | None
    truncates: bool
    sampling: Sampling
    limits: Limits
    log_probs: int | None
    tools: Tools
    guide: Guide | None
    variables: Mapping[str, Any]
    thinking_budget: int | None
    skip_special_tokens: bool
    stream: bool
    echo: Mapping[str, Any]

    def text_request(self, items: Sequence[Item]) -> TextRequest:
        """What is asked of the model: to answer to `items`, the whole conversation.

        Raises InvalidRequestError for a conversation that isn't one.
        """
        use = self.tools.use
        prompt = ChatPrompt(
            messages=chat_messages(self.instructions, items),
            variables=self.variables,
            tools=use.tools if use else (),
        )
        return TextRequest(
            model=self.model or "",
            prompts=[prompt],
            prompt_param=PROMPT_PARAM,
            sampling=self.sampling,
            limits=self.limits,
            log_probs=self.log_probs,
            guide=self.guide,
            tools=use,
            thinking_budget=self.thinking_budget,
            skip_special_tokens=self.skip_special_tokens,
            stream=self.stream,
        )


def parse(body: bytes) -> Asked:
    """What `body` asks for. Raises InvalidRequestError."""
    request = read_body(body)
    tools = read_tools(request.tools, request.tool_choice, parallel=request.parallel_tool_calls)
    held_to, text = read_format(request.text)
    other = guide(request, tools=tools.use)
    once = held_to is None or other is None
    require(
        once,
        "'text.format' already says the form - 'structured_outputs'",
        param="structured_outputs",
    )
    effort, reasoning = read_reasoning(request.reasoning)
    variables = template_variables(request.chat_template_kwargs, reasoning_effort=effort)
    if held_to is not None:
        check_room_for_calls(held_to, tools.use, "text.format")
    return Asked(
        model=request.model,
        items=read_input(request.input),
        instructions=request.instructions,
        previous_response_id=request.previous_response_id,
        store=request.store,
        truncates=request.truncation == "auto",
        sampling=sampling(request),
        limits=limits(
            request,
            max_tokens=request.max_output_tokens,
            max_name="max_output_tokens",
            tools=tools.use,
        ),
        log_probs=_log_probs(request),
        tools=tools,
        guide=held_to or other,
        variables=variables,
        thinking_budget=thinking_budget(request.thinking_token_budget),
        skip_special_tokens=request.skip_special_tokens is not False,
        stream=bool(request.stream),
        echo=_echo(request, tools, text=text, reasoning=reasoning),
    )


def _log_probs(request: ResponsesRequest) -> int | None:
    """Alternatives to each token; `top_logprobs` alone asks for them too."""
    if request.top_logprobs or _LOG_PROBS in (request.include or ()):
        return request.top_logprobs or 0
    return None


def _echo(
    request: ResponsesRequest,
    tools: Tools,
    *,
    text: Mapping[str, Any],
    reasoning: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention,
        "reasoning": reasoning,
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "temperature": request.temperature,
        "text": text,
        "tool_choice": tools.choice,
        "tools": tools.given,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": request.truncation or "disabled",
        "user": request.user,
    }
