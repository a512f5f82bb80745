"""Which functions the model is told of and may call, by every way of saying so."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from openai import pydantic_function_tool
from openai.lib._parsing._completions import type_to_response_format_param

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.protocol.openai_chat import parse
from server.protocol.request import ChatPrompt, TextRequest, ToolUse

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str, **values: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **values}}


WEATHER, TIME = tool("weather", description="how it is"), tool("time")
NAMED = {"type": "function", "function": {"name": "time"}}
CASES: dict[str, tuple[dict[str, Any], ToolUse | None]] = {
    "auto by default": ({}, ToolUse(tools=[WEATHER, TIME])),
    "auto": ({"tool_choice": "auto"}, ToolUse(tools=[WEATHER, TIME])),
    "none": ({"tool_choice": "none"}, None),
    "required": ({"tool_choice": "required"}, ToolUse(tools=[WEATHER, TIME], choice="required")),
    "one at a time": (
        {"parallel_tool_calls": False},
        ToolUse(tools=[WEATHER, TIME], parallel=False),
    ),
    "named": ({"tool_choice": NAMED}, ToolUse(tools=[WEATHER, TIME], choice="named", named="time")),
    "some allowed": (
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [NAMED]},
            }
        },
        ToolUse(tools=[TIME], choice="required"),
    ),
}


def asked(**values: Any) -> TextRequest:
    messages = [{"role": "user", "content": "hi"}]
    return parse(json.dumps({"messages": messages, **values}).encode())


@pytest.mark.parametrize("case", CASES)
def test_the_choice_says_what_may_be_called_and_what_the_template_is_told(case: str) -> None:
    values, wanted = CASES[case]
    request = asked(tools=[WEATHER, TIME], **values)
    assert request.tools == wanted
    (prompt,) = request.prompts
    assert isinstance(prompt, ChatPrompt)
    assert list(prompt.tools) == (list(wanted.tools) if wanted else [])


def test_a_function_without_parameters_takes_none_and_strict_isnt_told_to_the_model() -> None:
    bare = {"type": "function", "function": {"name": "now", "strict": True}}
    (told,) = asked(tools=[bare]).tools.tools  # type: ignore[union-attr]
    assert told["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


def test_deprecated_functions_are_tools_of_which_one_is_called() -> None:
    functions = [WEATHER["function"], TIME["function"]]
    request = asked(functions=functions)
    assert request.tools == ToolUse(tools=[WEATHER, TIME], parallel=False)
    assert request.form.deprecated_calls
    named = asked(functions=functions, function_call={"name": "time"})
    assert named.tools == ToolUse(
        tools=[WEATHER, TIME], choice="named", named="time", parallel=False
    )
    assert asked(functions=functions, function_call="none").tools is None


def test_choices_that_ask_for_nothing_need_no_tools() -> None:
    assert asked(tool_choice="none").tools is None
    assert asked(tool_choice="auto", parallel_tool_calls=True).tools is None
    assert asked(function_call="auto").tools is None


def test_calls_that_are_demanded_go_before_a_form_for_the_text() -> None:
    json_object = {"type": "json_object"}
    tools = {"tools": [TIME], "response_format": json_object}
    assert asked(**tools, tool_choice="required").tools is not None
    assert asked(**tools, tool_choice="none").tools is None


class Weather(pydantic.BaseModel):
    """How it is."""

    city: str


class Report(pydantic.BaseModel):
    """What is said in the end."""

    cities: list[Weather]


def test_tools_and_a_form_go_together_as_openais_client_sends_them() -> None:
    request = asked(
        tools=[pydantic_function_tool(Weather)],
        response_format=type_to_response_format_param(Report),
    )
    assert request.tools
    assert (request.tools.choice, request.tools.tools[0]["function"]["name"]) == ("auto", "Weather")
    assert request.guide
    assert json.loads(request.guide.text)["properties"].keys() == {"cities"}
    assert asked(tools=[TIME], response_format={"type": "json_object"}).guide == Guide(kind="json")


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"response_format": {"type": "regex", "regex": "a"}}, "response_format"),
        ({"guided_grammar": 'root ::= "a"'}, "guided_grammar"),
        ({"guided_choice": ["a"]}, "guided_choice"),
        ({"structured_outputs": {"json": {"title": "anything"}}}, "structured_outputs.json"),
    ],
)
def test_a_form_that_calls_cant_be_told_from_is_refused_beside_tools(
    form: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(tools=[TIME], **form)
    assert caught.value.param == param
    assert asked(tools=[TIME], tool_choice="required", **form).tools


def test_functions_may_be_called_like_the_choices_between_them() -> None:
    tools = [tool("auto"), tool("required"), tool("none")]
    for name in ("auto", "required", "none"):
        choice = {"type": "function", "function": {"name": name}}
        found = asked(tools=tools, tool_choice=choice).tools
        assert found
        assert (found.choice, found.named, found.demanded) == ("named", name, True)


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"tools": []}, "tools"),
        ({"tools": [tool(f"f{i}") for i in range(129)]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [tool("a b")]}, "tools[0].function.name"),
        ({"tools": [tool("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [TIME, TIME]}, "tools[1].function.name"),
        ({"tools": [tool("f", no_such=1)]}, "tools[0].function.no_such"),
        ({"tools": [tool("f", parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool("f", parameters={"type": "array"})]}, "tools[0].function.parameters.type"),
        (
            {"tools": [tool("f", parameters={"properties": {"a": {"type": "text"}}})]},
            "tools[0].function.parameters.properties.a.type",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": "any", "tools": [TIME]}, "tool_choice"),
        ({"tool_choice": NAMED, "tools": [WEATHER]}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "function"}, "tools": [TIME]}, "tool_choice.function"),
        (
            {"tool_choice": {"type": "allowed_tools"}, "tools": [TIME]},
            "tool_choice.allowed_tools",
        ),
        ({"functions": [TIME["function"]], "tools": [TIME]}, "tools"),
        ({"functions": []}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        (
            {"functions": [TIME["function"]], "function_call": {"name": "f"}},
            "function_call.name",
        ),
    ],
)
def test_what_is_wrong_about_tools_is_named(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**values)
    assert (caught.value.param or "").startswith(param)


def test_stop_strings_are_for_text_and_cut_no_demanded_call() -> None:
    for choice in ("required", {"type": "function", "function": {"name": "time"}}):
        assert asked(tools=[TIME], tool_choice=choice, stop="city").limits.stop == ()
    assert asked(tools=[TIME], stop="city").limits.stop == ("city",)
    with pytest.raises(InvalidRequestError) as caught:
        asked(tools=[TIME], tool_choice="required", stop=[""])
    assert caught.value.param == "stop"
