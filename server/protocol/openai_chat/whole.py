"""A whole chat answer, as bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.protocol.openai_chat.choices import finish_reason, log_probs_json
from server.protocol.openai_shared import head_json, prompt_log_probs_json, usage_json
from server.protocol.request import AnswerHead, CallDelta, TextEvent, TextRequest, Usage
from server.protocol.sse import encode


def render(
    head: AnswerHead, request: TextRequest, choices: Iterable[TextEvent], usage: Usage
) -> bytes:
    """The whole answer; each choice is one event with all its text."""
    choices = list(choices)
    first = choices[0]
    whole = {
        **head_json(head, "chat.completion", request.form),
        "choices": [_choice(request, choice) for choice in choices],
        "usage": usage_json(usage),
    }
    if request.prompt_log_probs is not None:
        whole["prompt_logprobs"] = prompt_log_probs_json(first.prompt_log_probs, request.form)
    if request.return_token_ids:
        whole["prompt_token_ids"] = first.prompt_token_ids
    return encode(whole)


def _choice(request: TextRequest, choice: TextEvent) -> dict[str, Any]:
    top, form = request.log_probs, request.form
    rendered = {
        "index": choice.index,
        "message": _message(request, choice),
        "logprobs": None if top is None else log_probs_json(choice.log_probs, top, form),
        "finish_reason": finish_reason(choice, form),
        "stop_reason": choice.stopped_by,
    }
    if request.return_token_ids:
        rendered["token_ids"] = choice.token_ids
    return rendered


def _message(request: TextRequest, choice: TextEvent) -> dict[str, Any]:
    calls, text = choice.calls, request.form.prefix + choice.text
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if calls and not text else text,
        "refusal": None,
    }
    if choice.reasoning:
        message["reasoning"] = message["reasoning_content"] = choice.reasoning
    if calls and request.form.deprecated_calls:
        message["function_call"] = _function(calls[0])
    elif calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": _function(call)} for call in calls
        ]
    return message


def _function(call: CallDelta) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}
