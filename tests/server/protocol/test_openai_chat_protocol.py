"""A chat's body: what arrives of it, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.protocol.openai_chat import parse
from server.protocol.request import ChatPrompt

MINIMAL = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def body(**values: Any) -> bytes:
    return json.dumps({**MINIMAL, **values}).encode()


def refusal(content: bytes) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(content)
    return caught.value


def test_every_honoured_parameter_arrives() -> None:
    request = parse(
        body(
            n=2,
            best_of=3,
            max_completion_tokens=5,
            max_tokens=9,
            temperature=0.5,
            top_p=0.25,
            top_k=3,
            seed=-1,
            stop=["a", "b"],
            stop_token_ids=[4],
            frequency_penalty=1,
            presence_penalty=-1,
            repetition_penalty=1.5,
            logit_bias={"7": -100, "8": 0.5},
            bad_words=["no"],
            min_tokens=2,
            ignore_eos=True,
            include_stop_str_in_output=True,
            use_beam_search=True,
            length_penalty=0.5,
            early_stopping=True,
            response_format={"type": "json_object"},
            logprobs=True,
            top_logprobs=4,
            prompt_logprobs=2,
            return_token_ids=True,
            return_tokens_as_token_ids=True,
            truncate_prompt_tokens=100,
            skip_special_tokens=False,
            add_special_tokens=True,
            add_generation_prompt=False,
            chat_template_kwargs={"enable_thinking": False},
            documents=[{"title": "t", "text": "x"}],
            reasoning_effort="low",
            include_reasoning=False,
            service_tier="flex",
        )
    )
    prompt = request.prompts[0]
    assert isinstance(prompt, ChatPrompt)
    assert (prompt.add_special_tokens, prompt.add_generation_prompt) == (True, False)
    assert prompt.variables == {
        "enable_thinking": False,
        "documents": [{"title": "t", "text": "x"}],
        "reasoning_effort": "low",
    }
    sampling, limits = request.sampling, request.limits
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.25, 3)
    assert (sampling.seed, sampling.repetition_penalty) == (-1, 1.5)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (1, -1)
    assert (sampling.logit_bias, sampling.bad_words) == ({7: -100, 8: 0.5}, ("no",))
    assert sampling.beams
    assert (sampling.length_penalty, sampling.early_stopping) == (0.5, True)
    assert (limits.max_tokens, limits.min_tokens) == (5, 2)
    assert (limits.stop, limits.stop_token_ids) == (("a", "b"), (4,))
    assert (limits.ignore_eos, limits.include_stop) == (True, True)
    assert (request.n, request.best_of) == (2, 3)
    assert (request.log_probs, request.prompt_log_probs) == (4, 2)
    assert request.guide == Guide(kind="json")
    assert (request.return_token_ids, request.truncate_prompt_tokens) == (True, 100)
    assert not request.skip_special_tokens
    assert not request.include_reasoning
    assert (request.form.tokens_as_ids, request.form.service_tier) == (True, "default")


def test_a_stream_may_tell_its_usage_in_the_end_or_always() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True, "include_obfuscation": False}
    request = parse(body(stream=True, stream_options=options))
    assert (request.stream, request.include_usage, request.continuous_usage) == (True, True, True)
    plain = parse(body(stream=True))
    assert (plain.include_usage, plain.continuous_usage) == (False, False)


def test_without_a_value_the_models_own_sampling_is_meant_and_all_the_room() -> None:
    request = parse(body())
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (None, None, None)
    assert (request.limits.max_tokens, request.n, request.best_of) == (None, 1, None)
    assert (request.log_probs, request.guide, request.tools) == (None, None, None)


def test_top_k_minus_1_is_off_and_truncation_minus_1_all_that_fits_as_in_vllm() -> None:
    request = parse(body(top_k=-1, truncate_prompt_tokens=-1))
    assert (request.sampling.top_k, request.truncate_prompt_tokens) == (0, -1)


def test_without_a_model_the_default_one_is_meant() -> None:
    assert parse(json.dumps({"messages": MINIMAL["messages"]}).encode()).model == ""


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 1e300}, "repetition_penalty"),
        ({"logit_bias": {"7": 101}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"seven": 1}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"bad_words": [""]}, "bad_words"),
        ({"bad_words": "no"}, "bad_words"),
        ({"stop": "x" * 1025}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop_token_ids": [1] * 257}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": [2**31]}, "stop_token_ids"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**70}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 3, "min_tokens": 4}, "min_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"n": 1, "best_of": 2, "stream": True}, "best_of"),
        ({"use_beam_search": True, "stream": True}, "use_beam_search"),
        ({"length_penalty": 0.5}, "length_penalty"),
        ({"early_stopping": True}, "early_stopping"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"service_tier": "first class"}, "service_tier"),
        ({"documents": {}}, "documents"),
        ({"documents": [{}] * 1001}, "documents"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}},
            "chat_template_kwargs.reasoning_effort",
        ),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"model": 1}, "model"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], param: str) -> None:
    assert refusal(body(**values)).param == param


def test_missing_messages_are_named() -> None:
    assert refusal(b'{"model": "m"}').param == "messages"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"model": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 9999,
        b'{"model":"m","messages":[],"tools":' + b"[" * 9999 + b"]" * 9999 + b"}",
    ],
)
def test_broken_bodies_are_refused_without_a_crash(content: bytes) -> None:
    refusal(content)


def test_deep_values_for_the_template_are_refused_by_name() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = {"a": deep}
    assert refusal(body(chat_template_kwargs=deep)).param == "chat_template_kwargs"
    assert refusal(body(documents=[deep])).param == "documents"


def test_complaints_are_bounded_whatever_the_body_holds() -> None:
    long = "x" * 100_000
    for values in (
        {long: 1},
        {"messages": [{"role": long, "content": ""}]},
        {"seed": long},
        {"response_format": {"type": long}},
        {"response_format": {"type": "json", "schema": {"properties": {long: {"type": "y"}}}}},
        {"messages": [{"role": "user", "content": [{"type": long}]}]},
    ):
        error = refusal(body(**values))
        assert len(str(error)) < 1000
        assert len(error.param or "") < 1000
