"""A chat request's body: every parameter checked, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from server.protocol.openai_chat.messages import Message, conversation
from server.protocol.openai_chat.tools import Function, NamedFunction, Tool, ToolChoice, tool_use
from server.protocol.openai_shared import (
    MAX_LOG_PROBS,
    ReasoningEffort,
    SharedParameters,
    answer_form,
    text_request,
    thinking_budget,
)
from server.protocol.parameters import CHAT, TEMPLATE_VARIABLES
from server.protocol.request import ChatPrompt, TextRequest
from server.protocol.validation import check_depth, check_range, decode, require

MAX_DOCUMENTS = 1000
_RESERVED = ("messages", "tools", "add_generation_prompt", "continue_final_message")
"""What the template is told by parameters of their own."""


class ChatRequest(SharedParameters, kw_only=True):
    """The honoured parameters of a chat request."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    reasoning_effort: ReasoningEffort | None = None
    include_reasoning: bool | None = None
    thinking_token_budget: int | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None


class ChatParameters(Protocol):
    """The parameters about a conversation."""

    @property
    def messages(self) -> Sequence[Message] | None:
        """What was said so far."""
        ...

    add_special_tokens: bool | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None
    chat_template_kwargs: dict[str, Any] | None


_decoder = msgspec.json.Decoder(ChatRequest)


def parse(body: bytes) -> TextRequest:
    """The request in `body`. Raises InvalidRequestError."""
    request = decode(body, _decoder, CHAT)
    limit = request.max_completion_tokens
    tools = tool_use(request)
    prompt = chat_prompt(request, tools=tools.tools if tools else ())
    return text_request(
        request,
        prompts=[prompt],
        prompt_param="messages",
        max_tokens=request.max_tokens if limit is None else limit,
        max_name="max_tokens" if limit is None else "max_completion_tokens",
        log_probs=_log_probs(request),
        tools=tools,
        include_reasoning=request.include_reasoning is not False,
        thinking_budget=thinking_budget(request.thinking_token_budget),
        form=answer_form(
            request,
            deprecated_calls=request.functions is not None,
            prefix=_prefix(request, prompt),
            service_tier=None if request.service_tier is None else "default",
        ),
    )


def _log_probs(request: ChatRequest) -> int | None:
    name = "top_logprobs"
    check_range(name, request.top_logprobs, 0, MAX_LOG_PROBS)
    if not request.logprobs:
        needs = f"'{name}' is only allowed when 'logprobs' is enabled"
        require(not request.top_logprobs, needs, param=name)
        return None
    return request.top_logprobs or 0


def chat_prompt(request: ChatParameters, *, tools: Sequence[Mapping[str, Any]]) -> ChatPrompt:
    """The conversation and what its template is told. Raises InvalidRequestError."""
    continue_final = bool(request.continue_final_message)
    add_prompt = request.add_generation_prompt
    if continue_final:
        complaint = "can't be set together with 'add_generation_prompt'"
        param = "continue_final_message"
        require(not add_prompt, f"'{param}' {complaint}", param=param)
    return ChatPrompt(
        messages=conversation(request.messages or ()),
        add_generation_prompt=not continue_final if add_prompt is None else add_prompt,
        continue_final_message=continue_final,
        add_special_tokens=bool(request.add_special_tokens),
        variables=template_variables(
            request.chat_template_kwargs,
            **{name: getattr(request, name, None) for name in TEMPLATE_VARIABLES},
        ),
        tools=tools,
    )


def template_variables(variables: dict[str, Any] | None, **parameters: Any) -> dict[str, Any]:
    """The template's own variables and the `parameters` that it may know, those that are given.

    Raises InvalidRequestError for a name that is taken.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    for name in (*_RESERVED, *given):
        param = f"chat_template_kwargs.{name}"
        twice = f"'{param}' is a parameter of the request itself"
        require(name not in (variables or {}), twice, param=param)
    check_depth(variables, "chat_template_kwargs")
    check_depth(given.get("documents"), "documents")
    most = f"more than {MAX_DOCUMENTS} documents - 'documents'"
    require(len(given.get("documents", ())) <= MAX_DOCUMENTS, most, param="documents")
    return {**(variables or {}), **given}


def _prefix(request: ChatRequest, prompt: ChatPrompt) -> str:
    """With `echo`, as in vLLM, the last message where it is the answer's beginning."""
    last = prompt.messages[-1]
    text: str = last["content"] if request.echo and last["role"] == "assistant" else ""
    return text
