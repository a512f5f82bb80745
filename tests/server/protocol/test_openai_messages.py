"""OpenAI's messages become the form that chat templates are written for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage

from server.errors import InvalidRequestError
from server.protocol.openai_chat import parse
from server.protocol.request import ChatPrompt

USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def conversation(*messages: Any, **values: Any) -> list[Any]:
    (prompt,) = parse(json.dumps({"messages": messages, **values}).encode()).prompts
    assert isinstance(prompt, ChatPrompt)
    return list(prompt.messages)


def test_text_parts_are_joined_by_lines_and_other_parts_are_refused_by_place() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert conversation({"role": "user", "content": parts})[0]["content"] == "a\nb"
    refusal = [{"type": "refusal", "refusal": "no"}]
    assert conversation(USER, {"role": "assistant", "content": refusal})[1]["content"] == "no"
    for part in (
        {"type": "image_url", "image_url": {"url": "http://x"}},
        {"type": "refusal", "refusal": "no"},
        {"type": "text"},
    ):
        with pytest.raises(InvalidRequestError) as caught:
            conversation({"role": "user", "content": [parts[0], part]})
        assert caught.value.param == "messages[0].content[1]"


def test_a_call_and_its_result_go_to_the_template_in_openais_shape() -> None:
    result = {"role": "tool", "tool_call_id": "call_a", "content": "7"}
    asked, answered = conversation(USER, {"role": "assistant", "tool_calls": [CALL]}, result)[1:]
    assert asked == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert answered == result


def test_the_deprecated_function_call_becomes_a_tool_call_with_its_result() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "7"},
    ]
    asked, answered = conversation(*messages)[1:]
    (call,) = asked["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": "{}"}
    assert answered == {
        "role": "tool",
        "tool_call_id": call["id"],
        "name": "f",
        "content": "7",
    }


def test_what_the_clients_message_object_dumps_can_be_sent_back() -> None:
    answer = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [CALL]}
    )
    sent_back = conversation(USER, answer.model_dump())[1]
    assert (sent_back["reasoning_content"], sent_back["tool_calls"]) == ("hm", [CALL])
    refused = ChatCompletionMessage(role="assistant", content=None, refusal="no")
    assert conversation(USER, refused.model_dump())[1] == {"role": "assistant", "content": "no"}
    function = {**CALL["function"], "parsed_arguments": {"n": 7}}
    own = {"parsed": None, "provider_specific_fields": {"a": 1}, "thinking_blocks": None}
    dumped = {"role": "assistant", "tool_calls": [{**CALL, "function": function}], **own}
    assert conversation(USER, dumped)[1]["tool_calls"] == [CALL]


def test_an_echo_repeats_the_last_message_when_it_is_the_answers_beginning() -> None:
    messages = [USER, {"role": "assistant", "content": "Well"}]
    values = {"messages": messages, "echo": True, "continue_final_message": True}
    request = parse(json.dumps(values).encode())
    assert (request.form.prefix, request.echo) == ("Well", False)
    assert parse(json.dumps({"messages": [USER], "echo": True}).encode()).form.prefix == ""


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "tool", "tool_call_id": "a"}], "messages[0].content"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": "x", "y": 1}], "messages[0].y"),
        ([{"role": "user", "content": "x", "name": "a b"}], "messages[0].name"),
        ([{"role": "user", "content": "x", "audio": {"id": 1}}], "messages[0].audio"),
        ([{"role": "user", "content": "x", "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([{"role": "user", "content": "x", "tool_call_id": "a"}], "messages[0].tool_call_id"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        ([{"role": "function", "content": "x"}], "messages[0].name"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "a"}]}],
            "messages[0].tool_calls[0].function",
        ),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}],
            "messages[0].tool_calls[0].type",
        ),
        (
            [{"role": "assistant", "tool_calls": [CALL], "function_call": CALL["function"]}],
            "messages[0].function_call",
        ),
        ([USER, {"role": "assistant", "content": "x", "y": 1}], "messages[1].y"),
    ],
)
def test_what_is_wrong_in_a_message_is_named_by_place(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(json.dumps({"messages": messages}).encode())
    assert caught.value.param == param
