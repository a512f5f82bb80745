"""A chat's answers, byte by byte in OpenAI's shapes, as OpenAI's own client reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from server.answer import joined
from server.errors import NotReadyError
from server.protocol.openai_chat import ID_PREFIX, ChatStream, parse, render
from server.protocol.request import (
    AnswerHead,
    CallDelta,
    TextEvent,
    TextRequest,
    TokenLogProb,
    Usage,
)

HEAD = AnswerHead(id="chatcmpl-1", created=7, model="m")
USAGE = Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1, reasoning_tokens=1)
USAGE_JSON = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
TOOL = {"type": "function", "function": {"name": "f"}}
CALLS = [
    CallDelta(index=0, id="call_a", name="f"),
    CallDelta(index=0, arguments='{"x'),
    CallDelta(index=0, arguments='": "é"}'),
    CallDelta(index=1, id="call_b", name="g", arguments="{}"),
]


def asked(**values: Any) -> TextRequest:
    messages = [{"role": "user", "content": "hi"}]
    return parse(json.dumps({"messages": messages, **values}).encode())


def events(data: bytes) -> list[Any]:
    lines = data.decode().removesuffix("data: [DONE]\n\n").split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def streamed(
    request: TextRequest, parts: Sequence[TextEvent], usage: Usage | None = None
) -> list[Any]:
    stream = ChatStream(HEAD, request)
    data = stream.start(0) + b"".join(stream.delta(part, usage) for part in parts)
    end = stream.end(USAGE)
    assert end.endswith(b"data: [DONE]\n\n")
    return events(data + end)


def deltas(chunks: Sequence[Any]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def accumulated(chunks: Sequence[Any]) -> ChatCompletion:
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return ChatCompletion.model_validate(state.get_final_completion().model_dump())


def whole(request: TextRequest, choice: TextEvent) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(render(HEAD, request, [choice], USAGE))
    ChatCompletion.model_validate(answer, strict=True)
    return answer


def test_streamed_chunks_have_openais_shape_and_order() -> None:
    request = asked(stream=True, stream_options={"include_usage": True})
    chunks = streamed(
        request,
        [
            TextEvent(index=0, text='Hé "\n'),
            TextEvent(index=0, text="", finish_reason="stop", stopped_by="\n"),
        ],
    )
    fingerprint = chunks[0]["system_fingerprint"]
    assert fingerprint.startswith("fp_")
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "system_fingerprint": fingerprint,
    }

    def chunk(delta: dict[str, Any], **last: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **last}
        return {**head, "choices": [choice], "usage": None}

    assert chunks == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": 'Hé "\n'}),
        chunk({}, finish_reason="stop", stop_reason="\n"),
        {**head, "choices": [], "usage": USAGE_JSON},
    ]


def test_usage_is_told_in_the_end_or_with_each_chunk_or_not_at_all() -> None:
    parts = [TextEvent(index=0, text="x"), TextEvent(index=0, text="", finish_reason="length")]
    plain = streamed(asked(stream=True), parts)
    assert all("usage" not in chunk for chunk in plain)
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = streamed(asked(stream=True, stream_options=options), parts, USAGE)
    assert [chunk["usage"] for chunk in chunks] == [None, *[USAGE_JSON] * 3]


def test_reasoning_comes_first_and_under_both_names() -> None:
    parts = [
        TextEvent(index=0, text="", reasoning="h"),
        TextEvent(index=0, text="yes", reasoning="m", finish_reason="stop"),
    ]
    chunks = streamed(asked(stream=True), parts)
    assert deltas(chunks)[1:] == [
        {"reasoning": "h", "reasoning_content": "h"},
        {"reasoning": "m", "reasoning_content": "m"},
        {"content": "yes"},
        {},
    ]
    event = TextEvent(index=0, text="yes", reasoning="hm", finish_reason="stop")
    message = whole(asked(), event)["choices"][0]["message"]
    assert (message["reasoning"], message["reasoning_content"]) == ("hm", "hm")
    assert message["content"] == "yes"


def test_a_call_begins_with_its_name_and_goes_on_with_pieces_of_its_arguments() -> None:
    parts = [
        *(TextEvent(index=0, text="", calls=[call]) for call in CALLS),
        TextEvent(index=0, text="", finish_reason="tool_calls"),
    ]
    chunks = streamed(asked(stream=True, tools=[TOOL]), parts)

    def begun(index: int, call_id: str, name: str) -> dict[str, Any]:
        function = {"name": name, "arguments": ""}
        call = {"index": index, "id": call_id, "type": "function", "function": function}
        return {"tool_calls": [call]}

    def more(index: int, arguments: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}

    assert deltas(chunks)[1:] == [
        begun(0, "call_a", "f"),
        more(0, '{"x'),
        more(0, '": "é"}'),
        begun(1, "call_b", "g"),
        more(1, "{}"),
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


TEXTS = st.text(max_size=4)
TOKENS = st.lists(
    st.builds(
        TokenLogProb,
        content=st.binary(max_size=3),
        log_prob=st.floats(-9, 0),
        token_id=st.integers(0, 9),
    ),
    max_size=2,
)


@st.composite
def answers(draw: st.DrawFn) -> list[TextEvent]:
    """Reasoning, then content, then calls, cut into events anyhow."""
    calls = [
        CallDelta(
            index=index,
            id=f"call_{index}" if first else None,
            name="f" if first else None,
            arguments=piece,
        )
        for index, pieces in enumerate(
            draw(st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=2))
        )
        for first, piece in zip([True, False, False], pieces, strict=False)
    ]
    events = [
        *(TextEvent(index=0, text="", reasoning=one) for one in draw(st.lists(TEXTS, max_size=2))),
        TextEvent(index=0, text=draw(TEXTS), reasoning=draw(TEXTS)),
        *(TextEvent(index=0, text=one) for one in draw(st.lists(TEXTS, max_size=2))),
        TextEvent(index=0, text=draw(TEXTS), calls=calls[:1]),
        *(TextEvent(index=0, text="", calls=[one]) for one in calls[1:]),
    ]
    events = [replace(event, log_probs=draw(TOKENS)) for event in events]
    events[-1] = replace(events[-1], finish_reason="tool_calls" if calls else "stop")
    return events


def called(calls: Sequence[Any] | None) -> list[tuple[str, str, str]]:
    functions = [(call["id"], call["function"]) for call in calls or ()]
    return [(call_id, made["name"], made["arguments"]) for call_id, made in functions]


@settings(max_examples=60, deadline=None)
@given(events=answers(), log_probs=st.booleans(), deprecated=st.booleans())
def test_the_client_puts_any_stream_together_to_what_the_whole_answer_says(
    events: list[TextEvent], log_probs: bool, deprecated: bool
) -> None:
    tools = {"functions": [TOOL["function"]]} if deprecated else {"tools": [TOOL]}
    if deprecated:  # which are called one at a time
        firsts = [[call for call in event.calls if not call.index] for event in events]
        events = [replace(one, calls=calls) for one, calls in zip(events, firsts, strict=True)]
    request = asked(stream=True, logprobs=log_probs, **tools)
    (choice,) = whole(request, joined(events))["choices"]
    (put_together,) = accumulated(streamed(request, events)).model_dump()["choices"]
    message, wanted = put_together["message"], choice["message"]
    assert put_together["finish_reason"] == choice["finish_reason"]
    assert (message["content"] or "") == (wanted["content"] or "")
    assert (message.get("reasoning") or "") == wanted.get("reasoning", "")
    assert message.get("function_call") == wanted.get("function_call")
    assert called(message.get("tool_calls")) == called(wanted.get("tool_calls"))
    told = (put_together["logprobs"] or {}).get("content") or []
    assert told == ((choice["logprobs"] or {}).get("content") or [])


def test_an_answer_of_calls_alone_has_no_content() -> None:
    event = TextEvent(index=0, text="", calls=CALLS, finish_reason="tool_calls")
    (choice,) = whole(asked(tools=[TOOL]), joined([event]))["choices"]
    assert choice["message"]["content"] is None
    (choice,) = whole(asked(), TextEvent(index=0, text="", finish_reason="stop"))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": None}


def test_deprecated_functions_are_answered_in_their_own_shape() -> None:
    request = asked(functions=[{"name": "f"}], stream=True)
    parts = [
        *(TextEvent(index=0, text="", calls=[call]) for call in CALLS[:3]),
        TextEvent(index=0, text="", finish_reason="tool_calls"),
    ]
    chunks = streamed(request, parts)
    assert deltas(chunks)[1:] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": '{"x'}},
        {"function_call": {"arguments": '": "é"}'}},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
    (choice,) = whole(request, joined(parts))["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"x": "é"}'}
    assert "tool_calls" not in choice["message"]


def test_log_probs_carry_the_tokens_bytes_and_so_many_alternatives() -> None:
    others = [
        TokenLogProb(content=b"a", log_prob=-0.1, token_id=1),
        TokenLogProb(content=b"b", log_prob=-2.5, token_id=2),
    ]
    token = TokenLogProb(content=b"\xc3", log_prob=float("-inf"), token_id=9, top=others)
    event = TextEvent(index=0, text="", log_probs=[token], finish_reason="stop")
    entry = {"token": "\N{REPLACEMENT CHARACTER}", "logprob": -9999.0, "bytes": [195]}
    top = [{"token": "a", "logprob": -0.1, "bytes": [97]}]
    request = asked(logprobs=True, top_logprobs=1)
    wanted = {"content": [{**entry, "top_logprobs": top}], "refusal": None}
    assert whole(request, event)["choices"][0]["logprobs"] == wanted
    chunk = streamed(request, [event])[1]
    assert chunk["choices"][0]["logprobs"] == wanted
    assert chunk["choices"][0]["delta"] == {"content": ""}
    by_id = asked(logprobs=True, return_tokens_as_token_ids=True)
    (shown,) = whole(by_id, event)["choices"][0]["logprobs"]["content"]
    assert (shown["token"], shown["top_logprobs"]) == ("token_id:9", [])


def test_the_prompts_log_probs_and_token_ids_are_told_in_vllms_shape() -> None:
    top = [TokenLogProb(content=b"b", log_prob=-0.25, token_id=2)]
    prompt = [
        TokenLogProb(content=b"<s>", log_prob=None, token_id=1),
        TokenLogProb(content=b"b", log_prob=-0.25, token_id=2, top=top),
        TokenLogProb(content=b"c", log_prob=-3.0, token_id=3, top=top),
    ]
    event = TextEvent(
        index=0,
        text="x",
        prompt_log_probs=prompt,
        prompt_token_ids=[1, 2, 3],
        token_ids=[4],
        finish_reason="stop",
    )
    answer = whole(asked(prompt_logprobs=1, return_token_ids=True), event)
    likeliest = {"logprob": -0.25, "rank": 1, "decoded_token": "b"}
    assert answer["prompt_logprobs"] == [
        None,
        {"2": likeliest},
        {"2": likeliest, "3": {"logprob": -3.0, "rank": None, "decoded_token": "c"}},
    ]
    assert (answer["prompt_token_ids"], answer["choices"][0]["token_ids"]) == ([1, 2, 3], [4])
    chunks = streamed(asked(stream=True, return_token_ids=True), [event])
    assert (chunks[1]["prompt_token_ids"], chunks[1]["choices"][0]["token_ids"]) == ([1, 2, 3], [4])
    assert "token_ids" not in chunks[2]["choices"][0]


def test_with_echo_the_answer_begins_with_the_message_that_it_continues() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well"}]
    values = {"messages": messages, "echo": True, "continue_final_message": True}
    event = TextEvent(index=0, text=", yes", finish_reason="stop")
    assert whole(asked(**values), event)["choices"][0]["message"]["content"] == "Well, yes"
    chunks = streamed(asked(**values, stream=True), [event])
    assert accumulated(chunks).choices[0].message.content == "Well, yes"


def test_a_service_tier_is_told_to_those_who_ask() -> None:
    event = TextEvent(index=0, text="x", finish_reason="stop")
    assert "service_tier" not in whole(asked(), event)
    assert whole(asked(service_tier="auto"), event)["service_tier"] == "default"


def test_a_failure_after_the_beginning_is_an_error_event_and_the_streams_end() -> None:
    data = ChatStream(HEAD, asked(stream=True)).fail(NotReadyError("gone", do="ask again"))
    (event,) = events(data)
    assert event["error"]["code"] == "service_unavailable"
    assert data.endswith(b"data: [DONE]\n\n")


def test_ids_are_chats() -> None:
    assert ID_PREFIX == "chatcmpl-"
