from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sdk_types import checked_response, stream_events

from server.answer import joined
from server.errors import NotReadyError
from server.protocol.request import AnswerHead, CallDelta, TextEvent, TokenLogProb, Usage
from server.protocol.responses.request import parse
from server.protocol.responses.response import ResponseObject
from server.protocol.responses.stream import ResponseStream
from server.protocol.responses.whole import render

HEAD = AnswerHead(id="resp_7", created=5, model="m")
USAGE = Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=8, reasoning_tokens=2)


def response(**values: Any) -> ResponseObject:
    body = {"model": "m", "input": "hi", **values}
    return ResponseObject(HEAD, parse(msgspec.json.encode(body)).echo, clock=lambda: 6.5)


def streamed(events: Sequence[TextEvent]) -> list[dict[str, Any]]:
    stream = ResponseStream(response())
    data = stream.start(0) + b"".join(stream.delta(event, None) for event in events)
    return stream_events(data + stream.end(USAGE))


def text(text: str, **values: Any) -> TextEvent:
    return TextEvent(index=0, text=text, **values)


def call(index: int, **values: Any) -> TextEvent:
    return text("", calls=[CallDelta(index=index, **values)])


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


ALL_KINDS = [
    text("", reasoning="let me "),
    text("", reasoning="see"),
    text("It "),
    text('is "so"\n'),
    call(0, id="call_a", name="look", arguments='{"at":'),
    call(0, arguments="1}"),
    call(1, id="call_b", name="go", arguments="{}"),
    text("", finish_reason="tool_calls"),
]


def test_reasoning_text_and_calls_come_as_items_in_openais_order_of_events() -> None:
    events = streamed(ALL_KINDS)
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_a_streams_last_response_is_what_the_whole_answer_is() -> None:
    whole = msgspec.json.decode(render(response(), joined(ALL_KINDS), USAGE))
    assert streamed(ALL_KINDS)[-1]["response"] == whole
    read = checked_response(whole)
    assert [item.type for item in read.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert read.output_text == 'It is "so"\n'
    assert whole["output"][2]["arguments"] == '{"at":1}'
    assert (read.status, read.completed_at) == ("completed", 6)
    assert len({item.id for item in read.output}) == 4


def test_usage_has_openais_names_for_these_answers() -> None:
    usage = streamed([text("x", finish_reason="stop")])[-1]["response"]["usage"]
    assert usage == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 13,
    }


def test_an_answer_cut_by_its_limit_is_incomplete_as_its_last_item_is() -> None:
    events = streamed([text("half"), text("", finish_reason="length")])
    assert kinds(events)[-1] == "incomplete"
    cut = events[-1]["response"]
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (cut["status"], cut["completed_at"]) == ("incomplete", None)
    assert [item["status"] for item in cut["output"]] == ["incomplete"]
    whole = render(response(), text("half", finish_reason="length"), USAGE)
    assert msgspec.json.decode(whole) == cut


def test_an_answer_that_says_nothing_is_an_empty_message_streamed_or_whole() -> None:
    events = streamed([text("", finish_reason="stop")])
    answer = events[-1]["response"]
    assert [item["content"][0]["text"] for item in answer["output"]] == [""]
    assert "output_text.delta" not in kinds(events)
    assert msgspec.json.decode(render(response(), text("", finish_reason="stop"), USAGE)) == answer


def test_a_model_that_only_thought_until_its_limit_has_no_message() -> None:
    events = streamed([text("", reasoning="hm"), text("", finish_reason="length")])
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning"]


def test_log_probs_come_with_the_text_and_again_with_the_whole_of_it() -> None:
    other = TokenLogProb(content=b"b", log_prob=float("-inf"), token_id=2)
    first = TokenLogProb(content="é".encode(), log_prob=-0.5, token_id=1, top=[other])
    second = TokenLogProb(content=b"!", log_prob=-0.25, token_id=3)
    events = streamed(
        [text("é", log_probs=[first]), text("!", log_probs=[second], finish_reason="stop")]
    )
    told = [event["logprobs"] for event in events if event["type"].endswith("text.delta")]
    assert told[0] == [
        {
            "token": "é",
            "logprob": -0.5,
            "top_logprobs": [{"token": "b", "logprob": -9999.0}],
        }
    ]
    (part,) = events[-1]["response"]["output"][0]["content"]
    assert [token["logprob"] for token in part["logprobs"]] == [-0.5, -0.25]
    assert [token["bytes"] for token in part["logprobs"]] == [[0xC3, 0xA9], [33]]


def test_a_failure_tells_the_error_and_then_the_response_as_far_as_it_came() -> None:
    stream = ResponseStream(response())
    data = stream.start(0) + stream.delta(text("half"))
    events = stream_events(data + stream.fail(NotReadyError("Triton is away", do="try again")))
    error, failed = events[-2:]
    assert (error["type"], error["code"], error["param"]) == ("error", "service_unavailable", None)
    assert "Triton is away" in error["message"]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == "server_error"
    assert failed["response"]["output"][0]["content"][0]["text"] == "half"
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert stream.final == msgspec.json.encode(failed["response"])


def test_a_failure_before_anything_was_written_tells_of_the_response_first() -> None:
    stream = ResponseStream(response())
    stream.start(0)
    assert kinds(stream_events(stream.fail(NotReadyError("Triton is away")))) == [
        "created",
        "in_progress",
        "error",
        "failed",
    ]


def test_text_that_json_must_escape_arrives_as_it_was() -> None:
    said = 'quote " backslash \\ newline \n tab \t é 😀 \u2028'
    events = streamed([text("a"), text(said), text("", finish_reason="stop")])
    assert [event["delta"] for event in events if "delta" in event] == ["a", said]


def test_what_is_said_after_a_call_is_an_item_after_it_streamed_or_whole() -> None:
    delta = CallDelta(index=0, id="call_a", name="look", arguments="{}", at=6)
    tokens = [token("Let"), token(" me"), token(" {}", said=False), token("Done")]
    written = [text("Let meDone", calls=[delta], log_probs=tokens)]
    written.append(text(".", log_probs=[token(".")], finish_reason="tool_calls"))
    answer = streamed(written)[-1]["response"]
    assert msgspec.json.decode(render(response(), joined(written), USAGE)) == answer
    first, call, last = answer["output"]
    assert call["type"] == "function_call"
    for item, said in ((first, "Let me"), (last, "Done.")):
        (part,) = item["content"]
        assert part["text"] == said
        assert "".join(told["token"] for told in part["logprobs"]) == said


def token(text: str, *, said: bool = True) -> TokenLogProb:
    return TokenLogProb(content=text.encode(), log_prob=-1.0, token_id=1, said=said)


def test_a_call_that_was_cut_off_is_incomplete() -> None:
    cut = call(0, id="call_a", name="look", arguments='{"at": ')
    answer = streamed([cut, text("", finish_reason="stop")])[-1]["response"]
    assert [item["status"] for item in answer["output"]] == ["incomplete"]
    assert (
        msgspec.json.decode(
            render(response(), joined([cut, text("", finish_reason="stop")]), USAGE)
        )
        == answer
    )
