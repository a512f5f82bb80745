"""A chat or a completion, of what they share and of what its dialect has read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.protocol.openai_shared.body import SharedParameters, StreamOptions
from server.protocol.openai_shared.guides import guide
from server.protocol.openai_shared.sampling import MAX_TOKEN_ID, limits, sampling
from server.protocol.request import AnswerForm, Prompt, TextRequest, ToolUse
from server.protocol.validation import check_range, require

MAX_CHOICES = 128
"""OpenAI's bound on `n`; the server's own may be lower."""
MAX_LOG_PROBS = 20
"""OpenAI's bound for chats and vLLM's for both; OpenAI's for completions is 5."""


def text_request(
    request: SharedParameters,
    *,
    prompts: Sequence[Prompt],
    prompt_param: str,
    max_tokens: int | None,
    max_name: str = "max_tokens",
    fewest_tokens: int = 1,
    log_probs: int | None,
    echo: bool = False,
    tools: ToolUse | None = None,
    include_reasoning: bool = True,
    thinking_budget: int | None = None,
    form: AnswerForm | None = None,
) -> TextRequest:
    """The request, of what its dialect has read and of all that is shared, checked here.

    `max_name` is what the client called `max_tokens`; there must be `fewest_tokens` of them.
    Raises InvalidRequestError.
    """
    n, best_of = _choices(request)
    _check_stream(request)
    check_range("prompt_logprobs", request.prompt_logprobs, 0, MAX_LOG_PROBS)
    _check_truncation(request.truncate_prompt_tokens)
    ends = limits(
        request, max_tokens=max_tokens, max_name=max_name, fewest=fewest_tokens, tools=tools
    )
    options = request.stream_options or StreamOptions()
    return TextRequest(
        model=request.model or "",
        prompts=prompts,
        prompt_param=prompt_param,
        sampling=sampling(request),
        limits=ends,
        n=n,
        best_of=best_of,
        log_probs=log_probs,
        prompt_log_probs=request.prompt_logprobs,
        echo=echo,
        guide=guide(request, tools=tools),
        tools=tools,
        include_reasoning=include_reasoning,
        thinking_budget=thinking_budget,
        skip_special_tokens=request.skip_special_tokens is not False,
        return_token_ids=bool(request.return_token_ids),
        truncate_prompt_tokens=request.truncate_prompt_tokens,
        stream=bool(request.stream),
        include_usage=bool(options.include_usage),
        continuous_usage=bool(options.continuous_usage_stats),
        form=form or answer_form(request),
    )


def answer_form(request: SharedParameters, **dialects: Any) -> AnswerForm:
    """How the answer is written, with what is the dialect's own."""
    return AnswerForm(tokens_as_ids=bool(request.return_tokens_as_token_ids), **dialects)


def _choices(request: SharedParameters) -> tuple[int, int | None]:
    """`n` and `best_of`: of so many, the `n` likeliest. None where all are answered."""
    check_range("n", request.n, 1, MAX_CHOICES)
    n = 1 if request.n is None else request.n
    check_range("best_of", request.best_of, n, MAX_CHOICES)
    if request.best_of is None or request.best_of == n:
        return n, None
    complaint = "the best of several are known only when all are written - 'best_of'"
    require(not request.stream, f"can't be streamed: {complaint}", param="best_of")
    return n, request.best_of


def _check_truncation(kept_tokens: int | None) -> None:
    """-1 keeps as much of the prompt as the model takes, as in vLLM."""
    name = "truncate_prompt_tokens"
    check_range(name, kept_tokens, -1, MAX_TOKEN_ID)
    require(kept_tokens != 0, f"a prompt has at least one token - '{name}'", param=name)


def _check_stream(request: SharedParameters) -> None:
    if request.prompt_logprobs is not None:
        complaint = "'prompt_logprobs' can't be streamed"
        require(not request.stream, complaint, param="prompt_logprobs")
    check_stream_options(request, refused=("include_obfuscation",))


def check_stream_options(request: SharedParameters, *, refused: Sequence[str]) -> None:
    """Refuse options of an answer that isn't streamed, and those that can't be honoured."""
    where, options = "stream_options", request.stream_options
    if options is None:
        return
    only = f"The '{where}' parameter is only allowed when 'stream' is enabled."
    require(bool(request.stream), only, param=where)
    for name in refused:
        param = f"{where}.{name}"
        require(not getattr(options, name), f"'{param}' can't be honoured", param=param)
