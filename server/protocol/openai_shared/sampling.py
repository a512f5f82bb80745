"""How an answer's tokens are chosen and where it ends, checked."""

from __future__ import annotations

from server.protocol.openai_shared.body import SharedParameters
from server.protocol.request import Limits, Sampling, ToolUse
from server.protocol.validation import check_range, require

MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_STOP_TOKEN_IDS = 256
MAX_BAD_WORDS = 256
MAX_BIASES = 1024
MAX_TOKEN_ID = 2**31 - 1
REPETITION_PENALTY_RANGE = (0.01, 100)
"""The engine wants more than 0, in 32 bits; the rest is to keep numbers finite."""
LENGTH_PENALTY_RANGE = (-100, 100)


def sampling(request: SharedParameters) -> Sampling:
    """How to sample; ranges checked. `top_k` -1 is off, as in vLLM."""
    check_range("temperature", request.temperature, 0, 2)
    check_range("top_p", request.top_p, 0, 1)
    check_range("top_k", request.top_k, -1, MAX_TOKEN_ID)
    check_range("presence_penalty", request.presence_penalty, -2, 2)
    check_range("frequency_penalty", request.frequency_penalty, -2, 2)
    check_range("seed", request.seed, -(2**63), 2**64 - 1)
    check_range("repetition_penalty", request.repetition_penalty, *REPETITION_PENALTY_RANGE)
    _check_beams(request)
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=0 if request.top_k == -1 else request.top_k,
        seed=request.seed,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=_biases(request.logit_bias),
        bad_words=_strings("bad_words", request.bad_words, MAX_BAD_WORDS),
        beams=bool(request.use_beam_search),
        length_penalty=1.0 if request.length_penalty is None else request.length_penalty,
        early_stopping=bool(request.early_stopping),
    )


def limits(
    request: SharedParameters,
    *,
    max_tokens: int | None,
    max_name: str,
    fewest: int = 1,
    tools: ToolUse | None,
) -> Limits:
    """Where the answer ends; `max_name` is what the client called `max_tokens`.

    Stop strings are for text: they don't cut a demanded call.
    """
    check_range(max_name, max_tokens, fewest, MAX_TOKEN_ID)
    at_most = MAX_TOKEN_ID if max_tokens is None else max_tokens
    check_range("min_tokens", request.min_tokens, 0, at_most)
    stop_ids = tuple(request.stop_token_ids or ())
    most = f"at most {MAX_STOP_TOKEN_IDS} ids - 'stop_token_ids'"
    require(len(stop_ids) <= MAX_STOP_TOKEN_IDS, most, param="stop_token_ids")
    for token in stop_ids:
        check_range("stop_token_ids", token, 0, MAX_TOKEN_ID)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    stops = _strings("stop", stop, MAX_STOPS)
    return Limits(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        stop=() if tools and tools.demanded else stops,
        stop_token_ids=stop_ids,
        ignore_eos=bool(request.ignore_eos),
        include_stop=bool(request.include_stop_str_in_output),
    )


def thinking_budget(tokens: int | None) -> int | None:
    """How many tokens may be thought. None for -1, as in vLLM and trtllm-serve: any number."""
    check_range("thinking_token_budget", tokens, -1, MAX_TOKEN_ID)
    return None if tokens == -1 else tokens


def _check_beams(request: SharedParameters) -> None:
    check_range("length_penalty", request.length_penalty, *LENGTH_PENALTY_RANGE)
    if request.use_beam_search:
        complaint = "beams are known only at their end: they can't be streamed"
        require(not request.stream, f"{complaint} - 'use_beam_search'", param="use_beam_search")
        return
    for name, neutral in (("length_penalty", (None, 1)), ("early_stopping", (None, False))):
        only_beams = f"'{name}' is only allowed when 'use_beam_search' is enabled"
        require(getattr(request, name) in neutral, only_beams, param=name)


def _biases(biases: dict[int, float] | None) -> dict[int, float]:
    most = f"at most {MAX_BIASES} tokens - 'logit_bias'"
    require(len(biases or ()) <= MAX_BIASES, most, param="logit_bias")
    for token, bias in (biases or {}).items():
        check_range("logit_bias", token, 0, MAX_TOKEN_ID)
        check_range("logit_bias", bias, -100, 100)
    return biases or {}


def _strings(name: str, values: list[str] | None, most: int) -> tuple[str, ...]:
    strings = tuple(values or ())
    require(len(strings) <= most, f"at most {most} strings - '{name}'", param=name)
    sizes = f"a string has 1 to {MAX_STOP_CHARS} characters - '{name}'"
    require(all(0 < len(one) <= MAX_STOP_CHARS for one in strings), sizes, param=name)
    return strings
