"""What OpenAI's chat and completions dialects have in common."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from server.protocol.request import AnswerHead, Limits, Sampling, Usage
from server.protocol.validation import check_range, require

MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_STOP_TOKEN_IDS = 256
REPETITION_PENALTY_RANGE = (0.01, 100)
"""The engine wants more than 0, in 32 bits; the rest is to keep numbers finite."""
_NEVER_LOG_PROB = -9999.0
"""What OpenAI sends for a probability of zero, whose logarithm JSON can't say."""


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`stream_options`; the last two are accepted when they ask for nothing."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class SharedParameters(msgspec.Struct, kw_only=True):
    """The parameters that both dialects honour. None is the parameter's default."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


def sampling(request: SharedParameters) -> Sampling:
    """How to sample; ranges checked. `top_k` -1 is off, as in vLLM."""
    check_range("temperature", request.temperature, 0, 2)
    check_range("top_p", request.top_p, 0, 1)
    check_range("top_k", request.top_k, -1, 2**31 - 1)
    check_range("presence_penalty", request.presence_penalty, -2, 2)
    check_range("frequency_penalty", request.frequency_penalty, -2, 2)
    check_range("seed", request.seed, -(2**63), 2**64 - 1)
    check_range("repetition_penalty", request.repetition_penalty, *REPETITION_PENALTY_RANGE)
    given = {
        name: value
        for name in Sampling.__dataclass_fields__
        if (value := getattr(request, name)) is not None
    }
    if given.get("top_k") == -1:
        given["top_k"] = 0
    return Sampling(**given)


def limits(request: SharedParameters, *, max_tokens: int | None, max_name: str) -> Limits:
    """Where the answer ends; `max_name` is what the client called `max_tokens`."""
    check_range(max_name, max_tokens, 1)
    check_range("min_tokens", request.min_tokens, 0, max_tokens)
    stop_ids = tuple(request.stop_token_ids or ())
    most = f"at most {MAX_STOP_TOKEN_IDS} ids - 'stop_token_ids'"
    require(len(stop_ids) <= MAX_STOP_TOKEN_IDS, most, param="stop_token_ids")
    for token in stop_ids:
        check_range("stop_token_ids", token, 0, 2**31 - 1)
    return Limits(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        stop=_stops(request.stop),
        stop_token_ids=stop_ids,
        ignore_eos=bool(request.ignore_eos),
        include_stop=bool(request.include_stop_str_in_output),
    )


def include_usage(request: SharedParameters) -> bool:
    """Whether a stream ends with a usage chunk."""
    options = request.stream_options
    if options is None:
        return False
    where = "stream_options"
    only_streaming = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    require(bool(request.stream), only_streaming, param=where)
    for name in ("include_obfuscation", "continuous_usage_stats"):
        param = f"{where}.{name}"
        require(not getattr(options, name), f"'{param}' can't be honoured", param=param)
    return bool(options.include_usage)


def head_json(head: AnswerHead, kind: str) -> dict[str, Any]:
    """What every answer and every chunk begins with; `kind` is OpenAI's `object`."""
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}


def usage_json(usage: Usage) -> dict[str, int]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def json_log_prob(log_prob: float) -> float:
    """A log probability that JSON can say."""
    return log_prob if math.isfinite(log_prob) else _NEVER_LOG_PROB


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    require(len(stops) <= MAX_STOPS, f"at most {MAX_STOPS} stop strings - 'stop'", param="stop")
    sizes = f"a stop string has 1 to {MAX_STOP_CHARS} characters - 'stop'"
    require(all(0 < len(stop) <= MAX_STOP_CHARS for stop in stops), sizes, param="stop")
    return stops


def without_none(content: dict[str, Any]) -> dict[str, Any]:
    """`content` without the keys whose value is None."""
    return {key: value for key, value in content.items() if value is not None}
