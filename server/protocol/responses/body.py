"""The parameters of POST /v1/responses that are honoured, each checked by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from server.errors import shown
from server.protocol.openai_shared import (
    MAX_LOG_PROBS,
    SharedParameters,
    StreamOptions,
    check_stream_options,
)
from server.protocol.responses.form import Reasoning, Text
from server.protocol.responses.parameters import INCLUDE, RESPONSES
from server.protocol.validation import check_range, decode, require

_MAX_METADATA: Final = 16
_MAX_METADATA_KEY_CHARS: Final = 64
_MAX_METADATA_VALUE_CHARS: Final = 512


class _PromptCacheOptions(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None
    prewarm: bool | None = None
    comparison_response_id: str | None = None


class ResponsesRequest(SharedParameters, kw_only=True):
    """The honoured parameters; what it inherits beyond them, RESPONSES refuses."""

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    prompt_cache_options: _PromptCacheOptions | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    thinking_token_budget: int | None = None


_decoder = msgspec.json.Decoder(ResponsesRequest)


def read_body(body: bytes) -> ResponsesRequest:
    """The parameters in `body`. Raises InvalidRequestError."""
    request = decode(body, _decoder, RESPONSES)
    _check(request)
    return request


def check_include(values: Sequence[str]) -> None:
    """Refuse what `include` doesn't know. Raises InvalidRequestError."""
    for index, value in enumerate(values):
        param = f"include[{index}]"
        require(value in INCLUDE, f"'{shown(value)}' is not known - '{param}'", param=param)


def _check(request: ResponsesRequest) -> None:
    given = request.input not in (None, []) or request.previous_response_id is not None
    require(given, "one of 'input' and 'previous_response_id' is required", param="input")
    check_range("max_tool_calls", request.max_tool_calls, 1)
    check_range("top_logprobs", request.top_logprobs, 0, MAX_LOG_PROBS)
    check_include(request.include or ())
    _check_metadata(request.metadata or {})
    # There is nothing to choose: usage is always told, and nothing is padded.
    check_stream_options(request, refused=StreamOptions.__struct_fields__)
    if (cache := request.prompt_cache_options) is not None:
        for name in ("prewarm", "comparison_response_id"):
            param = f"prompt_cache_options.{name}"
            require(not getattr(cache, name), f"'{param}' can't be honoured", param=param)


def _check_metadata(metadata: Mapping[str, str]) -> None:
    sizes = f"at most {_MAX_METADATA} pairs - 'metadata'"
    require(len(metadata) <= _MAX_METADATA, sizes, param="metadata")
    for key, value in metadata.items():
        fits = len(key) <= _MAX_METADATA_KEY_CHARS and len(value) <= _MAX_METADATA_VALUE_CHARS
        sizes = (
            f"keys have at most {_MAX_METADATA_KEY_CHARS} characters and values "
            f"{_MAX_METADATA_VALUE_CHARS} - 'metadata'"
        )
        require(fits, sizes, param="metadata")
