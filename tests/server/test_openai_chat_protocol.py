from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from server.errors import InvalidRequestError
from server.protocol import openai_chat
from server.protocol.openai_chat import ChatRequest, ChatStream, parse, render
from server.protocol.parameters import CHAT, Honoured, Metadata, Refused
from server.protocol.request import AnswerHead, ChatPrompt, TextEvent, TokenLogProb, Usage
from server.protocol.sse import DONE

HEAD = AnswerHead(id="chatcmpl-1", created=7, model="m")
MINIMAL = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

# OpenAI's specification 2.3.0.
OPENAI_PARAMETERS = """
audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
max_tokens messages metadata modalities model moderation n parallel_tool_calls prediction
presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort
response_format safety_identifier seed service_tier stop store stream stream_options temperature
tool_choice tools top_logprobs top_p user verbosity web_search_options
"""


def body(**values: Any) -> bytes:
    return json.dumps({**MINIMAL, **values}).encode()


def refusal(content: bytes) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(content)
    return caught.value


def events(data: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in data.decode().split("\n\n") if line]


def test_every_openai_parameter_has_a_fate() -> None:
    assert set(OPENAI_PARAMETERS.split()) <= CHAT.keys()


def test_the_table_and_the_struct_agree_on_what_is_honoured() -> None:
    honoured = {name for name, fate in CHAT.items() if isinstance(fate, Honoured)}
    assert honoured == set(ChatRequest.__struct_fields__)


@pytest.mark.parametrize("name", [n for n, fate in CHAT.items() if isinstance(fate, Refused)])
def test_what_cant_be_honoured_is_refused_by_name_unless_it_asks_for_nothing(name: str) -> None:
    fate = CHAT[name]
    assert isinstance(fate, Refused)
    for neutral in (None, *fate.neutral):
        parse(body(**{name: neutral}))
    error = refusal(body(**{name: {"x": [1]}}))
    assert error.param == name
    assert fate.reason in str(error)


@pytest.mark.parametrize("name", [n for n, fate in CHAT.items() if isinstance(fate, Metadata)])
def test_metadata_is_accepted_whatever_it_is(name: str) -> None:
    parse(body(**{name: "anything"}))
    parse(body(**{name: {"a": 1}}))


def test_every_honoured_parameter_arrives() -> None:
    request = parse(
        body(
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
            min_tokens=2,
            ignore_eos=True,
            stream=True,
            stream_options={"include_usage": True},
            logprobs=True,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            add_special_tokens=True,
            add_generation_prompt=False,
            chat_template_kwargs={"enable_thinking": False},
        )
    )
    prompt = request.prompts[0]
    assert isinstance(prompt, ChatPrompt)
    assert prompt.add_special_tokens
    assert not prompt.add_generation_prompt
    assert prompt.variables == {"enable_thinking": False}
    sampling, limits = request.sampling, request.limits
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (
        0.5,
        0.25,
        3,
        -1,
    )
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (1, -1)
    assert sampling.repetition_penalty == 1.5
    assert (limits.max_tokens, limits.min_tokens) == (5, 2)
    assert (limits.stop, limits.stop_token_ids) == (("a", "b"), (4,))
    assert limits.ignore_eos
    assert limits.include_stop
    assert request.log_probs
    assert request.stream
    assert request.include_usage
    assert not request.skip_special_tokens


def test_defaults_are_openais() -> None:
    request = parse(body())
    assert (request.sampling.temperature, request.sampling.top_p) == (1, 1)
    assert request.sampling.seed is None
    assert request.limits.max_tokens is None
    assert request.skip_special_tokens
    assert not request.stream


def test_null_is_the_default_everywhere() -> None:
    nullable = [n for n in CHAT if n not in ("model", "messages")]
    assert parse(body(**dict.fromkeys(nullable))) == parse(body())


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
        ({"stop": "x" * 1025}, "stop"),
        ({"stop_token_ids": [1] * 257}, "stop_token_ids"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**70}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 3, "min_tokens": 4}, "min_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": [2**31]}, "stop_token_ids"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
        ({"logprobs": 1}, "logprobs"),
        ({"n": True}, "n"),
        ({"no_such": 1}, "no_such"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "y": 1}]}, "messages[0].y"),
        ({"messages": [{"role": "user", "content": "x", "audio": {"id": 1}}]}, "messages[0].audio"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"model": 1}, "model"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], param: str) -> None:
    assert refusal(body(**values)).param == param


def test_a_missing_parameter_is_named() -> None:
    assert refusal(b'{"messages": []}').param == "model"
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


def test_complaints_are_bounded_whatever_the_body_holds() -> None:
    long = "x" * 100_000
    for values in ({long: 1}, {"messages": [{"role": long, "content": ""}]}, {"seed": long}):
        error = refusal(body(**values))
        assert len(str(error)) < 1000
        assert len(error.param or "") < 1000


def test_text_parts_are_joined_and_others_refused() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    prompt = parse(body(messages=[{"role": "user", "content": parts}])).prompts[0]
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0]["content"] == "a\nb"
    image = [{"type": "image_url", "image_url": {"url": "http://x"}}]
    error = refusal(body(messages=[{"role": "user", "content": image}]))
    assert error.param == "messages[0].content[0]"


def test_an_answer_can_be_sent_back_as_a_message() -> None:
    answer = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    prompt = parse(body(messages=[*MINIMAL["messages"], answer])).prompts[0]  # type: ignore[misc]
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[1] == {"role": "assistant", "content": ""}


def test_streamed_chunks_have_openais_shape() -> None:
    request = parse(body(stream=True, stream_options={"include_usage": True}))
    stream = ChatStream(HEAD, request)
    data = stream.start(0)
    data += stream.delta(TextEvent(index=0, text='Hé "\n'))
    data += stream.delta(TextEvent(index=0, text="", finish_reason="stop"))
    data += stream.usage(Usage(prompt_tokens=3, completion_tokens=2))
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [choice], "usage": None}

    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert events(data) == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": 'Hé "\n'}),
        chunk({}, "stop"),
        {**head, "choices": [], "usage": usage},
    ]
    assert DONE == b"data: [DONE]\n\n"


def test_without_include_usage_no_chunk_has_a_usage_key() -> None:
    stream = ChatStream(HEAD, parse(body(stream=True)))
    data = stream.start(0) + stream.delta(TextEvent(index=0, text="x", finish_reason="length"))
    assert all("usage" not in event for event in events(data))


def test_log_probs_carry_the_tokens_bytes() -> None:
    log_probs = [TokenLogProb(content=b"\xc3", log_prob=float("-inf"))]
    event = TextEvent(index=0, text="", log_probs=log_probs, finish_reason="stop")
    request = parse(body(logprobs=True))
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    answer = msgspec.json.decode(render(HEAD, request, [event], usage))
    entry = {"token": "\N{REPLACEMENT CHARACTER}", "logprob": -9999.0, "bytes": [195]}
    assert answer["choices"][0]["logprobs"]["content"] == [{**entry, "top_logprobs": []}]
    stream = ChatStream(HEAD, request)
    stream.start(0)
    chunks = events(stream.delta(event))
    assert chunks[0]["choices"][0]["logprobs"]["content"] == [{**entry, "top_logprobs": []}]


def test_ids_are_chats() -> None:
    assert openai_chat.ID_PREFIX == "chatcmpl-"
