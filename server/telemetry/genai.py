"""A request and its answer in the words of OpenTelemetry's conventions for generative AI.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md (in development).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.protocol.request import ChatPrompt, Prompt, TextPrompt, TextRequest

PROVIDER = "nvidia.triton"
"""There is no well-known value for Triton; others are free."""

OPERATIONS = {
    "chat_completions": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
"""Endpoint → gen_ai.operation.name."""

Attributes = dict[str, Any]

_REQUEST: Mapping[str, Callable[[TextRequest], Any]] = {
    "gen_ai.request.choice.count": lambda r: None if r.n == 1 else r.n,
    "gen_ai.request.stream": lambda r: r.stream or None,
    "gen_ai.request.seed": lambda r: r.sampling.seed,
    "gen_ai.request.temperature": lambda r: r.sampling.temperature,
    "gen_ai.request.top_p": lambda r: r.sampling.top_p,
    "gen_ai.request.top_k": lambda r: r.sampling.top_k,
    "gen_ai.request.frequency_penalty": lambda r: r.sampling.frequency_penalty,
    "gen_ai.request.presence_penalty": lambda r: r.sampling.presence_penalty,
    "gen_ai.request.max_tokens": lambda r: r.limits.max_tokens,
    "gen_ai.request.stop_sequences": lambda r: list(r.limits.stop) or None,
    "gen_ai.output.type": lambda r: "json" if r.guide and "json" in r.guide.kind else None,
}
"""Attribute → how it is read; None is left out, as what the request doesn't say."""


def begin(endpoint: str, model: str) -> Attributes:
    """What a span is given when it begins, so that samplers see it."""
    return {
        "gen_ai.operation.name": OPERATIONS.get(endpoint, endpoint),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
    }


def asked(request: TextRequest) -> Attributes:
    """What the client asked for, prompts aside."""
    found = {name: read(request) for name, read in _REQUEST.items()}
    return {name: value for name, value in found.items() if value is not None}


def answered(
    *,
    model: str,
    reasons: Sequence[str],
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
    ttft_seconds: float | None,
) -> Attributes:
    """What came of it; `ttft_seconds` only of a stream."""
    found: Attributes = {
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": prompt_tokens,
        "gen_ai.usage.output_tokens": completion_tokens,
    }
    if cached_tokens:
        found["gen_ai.usage.cache_read.input_tokens"] = cached_tokens
    if reasons:
        found["gen_ai.response.finish_reasons"] = list(reasons)
    if ttft_seconds is not None:
        found["gen_ai.response.time_to_first_chunk"] = ttft_seconds
    return found


def spoken(request: TextRequest, answers: Mapping[int, str]) -> tuple[list[Any], list[Any]]:
    """Prompts and answers as messages of parts, which nobody is told who didn't ask for them."""
    asked = [message for prompt in request.prompts for message in _messages(prompt)]
    return asked, [_message("assistant", [_text(text)]) for _, text in sorted(answers.items())]


def content(asked: list[Any], said: list[Any]) -> Attributes:
    """The same as attributes, which have no structure: JSON."""
    return {
        "gen_ai.input.messages": json.dumps(asked, default=str),
        "gen_ai.output.messages": json.dumps(said, default=str),
    }


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    if isinstance(prompt, ChatPrompt):
        return [_message(str(m.get("role", "")), _parts(m)) for m in prompt.messages]
    text = prompt.text if isinstance(prompt, TextPrompt) else " ".join(map(str, prompt.ids))
    return [_message("user", [_text(text)])]


def _message(role: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": role, "parts": parts}


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content") or []
    if message.get("role") == "tool":
        answer = {"id": message.get("tool_call_id"), "response": content}
        return [{"type": "tool_call_response", **answer}]
    pieces = [{"text": content}] if isinstance(content, str) else content
    parts = [_text(str(piece.get("text", ""))) for piece in pieces]
    for call in message.get("tool_calls") or ():
        function = call.get("function", {})
        named = {"id": call.get("id"), "name": function.get("name")}
        parts.append({"type": "tool_call", **named, "arguments": function.get("arguments")})
    return parts


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}
