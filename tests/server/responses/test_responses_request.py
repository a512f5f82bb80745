from __future__ import annotations

from typing import Any, get_args

import msgspec
import pydantic
import pytest
from openai import pydantic_function_tool
from openai.lib._parsing._responses import type_to_text_format_param
from openai.types.responses import response_create_params, response_includable, tool
from sdk_types import checked_response

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.protocol.parameters import Honoured, Metadata, Refused
from server.protocol.request import AnswerHead, ChatPrompt, TextRequest
from server.protocol.responses.body import ResponsesRequest
from server.protocol.responses.parameters import INCLUDE, OTHER_TOOLS, RESPONSES
from server.protocol.responses.request import Asked, parse
from server.protocol.responses.response import ResponseObject

LOOK = {
    "type": "function",
    "name": "look",
    "description": "Look at it.",
    "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}},
    "strict": True,
}
GO = {"type": "function", "name": "go", "parameters": None, "strict": False}


def asked(**values: Any) -> Asked:
    return parse(msgspec.json.encode({"model": "m", "input": "hi", **values}))


def refusal(**values: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        made(**values)
    return caught.value


def made(**values: Any) -> TextRequest:
    request = asked(**values)
    return request.text_request([item for item in request.items if isinstance(item, dict)])


def messages(items: Any, **values: Any) -> Any:
    (prompt,) = made(input=items, **values).prompts
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


def test_every_parameter_of_openais_package_has_a_fate() -> None:
    theirs = set(response_create_params.ResponseCreateParamsBase.__annotations__) | {"stream"}
    assert theirs <= RESPONSES.keys()


def test_every_value_of_include_and_every_type_of_tool_has_a_fate() -> None:
    assert set(get_args(response_includable.ResponseIncludable)) == INCLUDE.keys()
    (kinds, *_) = get_args(tool.Tool)
    types = {
        value
        for kind in get_args(kinds)
        for value in get_args(kind.model_fields["type"].annotation)
    }
    assert types == OTHER_TOOLS.keys() | {"function"}


def test_what_the_table_honours_is_what_the_struct_reads_and_the_rest_never_gets_there() -> None:
    honoured = {name for name, fate in RESPONSES.items() if isinstance(fate, Honoured)}
    assert honoured <= set(ResponsesRequest.__struct_fields__)
    for name in set(ResponsesRequest.__struct_fields__) - honoured:
        assert refusal(**{name: 1}).param == name


@pytest.mark.parametrize("name", [n for n, fate in RESPONSES.items() if isinstance(fate, Refused)])
def test_what_cant_be_honoured_is_refused_by_name_unless_it_asks_for_nothing(name: str) -> None:
    fate = RESPONSES[name]
    assert isinstance(fate, Refused)
    for neutral in (None, *fate.neutral):
        asked(**{name: neutral})
    error = refusal(**{name: {"x": [1]}})
    assert error.param == name
    assert fate.reason in str(error)


def test_metadata_is_accepted_whatever_it_is() -> None:
    for name in (name for name, fate in RESPONSES.items() if isinstance(fate, Metadata)):
        asked(**{name: "anything"})


def test_every_honoured_parameter_arrives() -> None:
    request = made(
        instructions="Be terse.",
        max_output_tokens=5,
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        seed=-1,
        stop=["a"],
        stop_token_ids=[4],
        frequency_penalty=1,
        presence_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={"7": 2},
        bad_words=["no"],
        min_tokens=2,
        ignore_eos=True,
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        chat_template_kwargs={"enable_thinking": False},
        reasoning={"effort": "low"},
        top_logprobs=2,
        include=["message.output_text.logprobs"],
        tools=[LOOK, GO],
        tool_choice="required",
        parallel_tool_calls=False,
        stream=True,
    )
    sampling, limits, (prompt,) = request.sampling, request.limits, request.prompts
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (
        0.5,
        0.25,
        3,
        -1,
    )
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (1, -1)
    assert sampling.repetition_penalty == 1.5
    assert (sampling.logit_bias, sampling.bad_words) == ({7: 2}, ("no",))
    assert (limits.max_tokens, limits.min_tokens, limits.stop) == (5, 2, ())
    assert (limits.stop_token_ids, limits.ignore_eos, limits.include_stop) == ((4,), True, True)
    assert (request.skip_special_tokens, request.log_probs, request.stream) == (False, 2, True)
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "hi"},
    ]
    assert prompt.variables == {"enable_thinking": False, "reasoning_effort": "low"}
    assert request.tools is not None
    assert (request.tools.choice, request.tools.parallel) == ("required", False)
    assert [tool["function"]["name"] for tool in prompt.tools] == ["look", "go"]
    assert prompt.tools[0]["function"]["parameters"] == LOOK["parameters"]


def test_reasoning_is_told_openly_so_that_asking_for_it_sealed_adds_nothing() -> None:
    assert made(include=["reasoning.encrypted_content"]) == made()


@pytest.mark.parametrize("nothing", [None, []])
def test_what_goes_on_from_an_answer_may_have_no_input_of_its_own(nothing: Any) -> None:
    assert asked(input=nothing, previous_response_id="resp_1").items == []


def test_log_probs_are_told_where_either_parameter_asks_for_them() -> None:
    assert made().log_probs is None
    assert made(include=["message.output_text.logprobs"]).log_probs == 0
    assert made(top_logprobs=3).log_probs == 3


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_tool_calls": 0}, "max_tool_calls"),
        ({"include": ["file_search_call.results", "nonsense"]}, "include[1]"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"truncation": "middle"}, "truncation"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"prompt_cache_retention": "7d"}, "prompt_cache_retention"),
        ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format.schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [LOOK, {**GO, "defer_loading": True}]}, "tools[1].defer_loading"),
        ({"tools": [LOOK, LOOK]}, "tools[1].name"),
        ({"tools": [{**GO, "parameters": {"type": "nonsense"}}]}, "tools[0].parameters.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "fly"}}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"tools": [LOOK], "structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        (
            {
                "tools": [LOOK],
                "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
            },
            "text.format",
        ),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]},
            "input[0].content[0]",
        ),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0]"),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
            "input[0].encrypted_content",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
    ],
)
def test_a_value_that_cant_be_honoured_is_refused_by_its_place(values: Any, param: str) -> None:
    assert refusal(**values).param == param


def test_a_conversation_becomes_the_messages_that_templates_know() -> None:
    conversation = [
        {"role": "developer", "content": "Rules."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "phase": "commentary",
            "content": [
                {"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}
            ],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "go", "arguments": '{"x":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "a wall"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "gone"}],
        },
        {"role": "assistant", "content": "A wall."},
        {"role": "user", "content": "And now?"},
    ]
    called = [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "go", "arguments": '{"x":1}'}},
    ]
    assert messages(conversation, instructions="Be terse.") == [
        {"role": "system", "content": "Be terse."},
        {"role": "developer", "content": "Rules."},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": called,
        },
        {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "a wall"},
        {"role": "tool", "tool_call_id": "c2", "name": "go", "content": "gone"},
        {"role": "assistant", "content": "A wall."},
        {"role": "user", "content": "And now?"},
    ]


def test_two_messages_of_the_model_stay_two() -> None:
    said = [{"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}]
    assert [message["content"] for message in messages(said)] == ["one", "two"]


def test_the_choice_none_neither_calls_nor_tells_of_tools_and_allowed_tools_are_some() -> None:
    none = made(tools=[LOOK], tool_choice="none")
    assert none.tools is None
    assert isinstance(none.prompts[0], ChatPrompt)
    assert none.prompts[0].tools == ()
    named = made(tools=[LOOK, GO], tool_choice={"type": "function", "name": "go"})
    assert named.tools is not None
    assert (named.tools.choice, named.tools.named) == ("named", "go")
    some = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "go"}],
    }
    allowed = made(tools=[LOOK, GO], tool_choice=some)
    assert allowed.tools is not None
    assert (allowed.tools.choice, len(allowed.tools.tools)) == ("required", 1)


def test_a_form_holds_the_answer_by_whichever_name_it_is_asked_for() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "name": "it", "schema": schema, "strict": True}
    guide = made(text={"format": form}).guide
    assert guide is not None
    assert (guide.kind, msgspec.json.decode(guide.text)) == ("json_schema", schema)
    as_object = made(text={"format": {"type": "json_object"}}).guide
    assert as_object is not None
    assert as_object.kind == "json"
    assert made(text={"format": {"type": "text"}, "verbosity": "medium"}).guide is None
    pattern = made(structured_outputs={"regex": "[ab]+"}).guide
    assert pattern is not None
    assert (pattern.kind, pattern.text) == ("regex", "[ab]+")
    both = refusal(text={"format": form}, structured_outputs={"regex": "a"})
    assert both.param == "structured_outputs"


def test_the_response_tells_again_what_was_asked_for_in_openais_types() -> None:
    form = {"type": "json_schema", "name": "it", "schema": {"type": "object"}, "strict": True}
    request = asked(
        instructions="Be terse.",
        max_output_tokens=5,
        max_tool_calls=2,
        metadata={"k": "v"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="p",
        prompt_cache_retention="24h",
        service_tier="flex",
        truncation="auto",
        text={"format": form},
        reasoning={"effort": "low", "summary": "auto"},
        tools=[LOOK, GO],
        tool_choice={"type": "function", "name": "look"},
        temperature=0.5,
        top_logprobs=2,
    )
    head = AnswerHead(id="resp_1", created=1, model="m")
    told = ResponseObject(head, request.echo).at("in_progress")
    response = checked_response(told)
    assert (response.instructions, response.metadata) == ("Be terse.", {"k": "v"})
    assert (response.max_output_tokens, response.max_tool_calls) == (5, 2)
    assert told["tools"] == [LOOK, {**GO, "description": None}]
    assert told["tool_choice"] == {"type": "function", "name": "look"}
    assert told["text"] == {"format": form, "verbosity": "medium"}
    assert told["reasoning"] == {"effort": "low", "summary": "auto"}
    assert told["service_tier"] == "default", "the only one that there is"
    assert (response.truncation, response.temperature, response.top_logprobs) == ("auto", 0.5, 2)


def test_the_response_to_the_least_request_has_openais_defaults() -> None:
    head = AnswerHead(id="resp_1", created=1, model="m")
    response = checked_response(ResponseObject(head, asked().echo).at("in_progress"))
    assert (response.parallel_tool_calls, response.tool_choice, response.tools) == (
        True,
        "auto",
        [],
    )
    assert (response.truncation, response.background, response.metadata) == ("disabled", False, {})
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "text"


class Weather(pydantic.BaseModel):
    """How it is."""

    city: str


def test_tools_and_a_form_go_together_as_openais_client_sends_them() -> None:
    form = {"format": type_to_text_format_param(Weather)}
    request = made(tools=[LOOK, responses_function_tool(Weather)], text=form)
    assert request.tools
    assert (request.tools.choice, len(request.tools.tools)) == ("auto", 2)
    assert request.guide
    assert request.guide.kind == "json_schema"
    assert made(tools=[LOOK], text={"format": {"type": "json_object"}}).guide == Guide(kind="json")


def responses_function_tool(model: type[pydantic.BaseModel]) -> Any:
    function = pydantic_function_tool(model)["function"]
    return {"type": "function", **function}


def test_stop_strings_cut_text_but_no_demanded_call() -> None:
    assert made(tools=[LOOK], tool_choice="required", stop=["at"]).limits.stop == ()
    assert made(tools=[LOOK], stop=["at"]).limits.stop == ("at",)
