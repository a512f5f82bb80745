"""Promise: a model whose template knows no functions is told of them, of calls and of results."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_tokenizers import CHATML

from text.chat_template import ChatTemplate
from text.errors import MessagesError
from text.told_tools import LISTED_CALLS, TAGGED_CALLS

WEATHER = {"name": "weather", "description": "Köln's <sky>", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": {"name": "n"}}]
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Rain?"}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"a":  "é"}'}}
CALLED = [
    USER,
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "wet"},
    {"role": "tool", "tool_call_id": "1", "content": '{"mm": 3}'},
]
SHOWN = """<|im_start|>user
Rain?<|im_end|>
<|im_start|>assistant
I look.
<tool_call>
{"name": "weather", "arguments": {"a":  "é"}}
</tool_call>
<tool_call>
{"name": "weather", "arguments": {"a":  "é"}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
wet
</tool_response>
<tool_response>
{"mm": 3}
</tool_response><|im_end|>
"""
R1 = CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}{% for c in message['tool_calls'] %}<own>{% endfor %}",
)
"""Shows calls in a way of its own and tells of no functions, as DeepSeek-V3.1's does."""
ALONE = CHATML.replace(
    "{{ message['content'] }}",
    "{% if message['content'] is not none %}{{ message['content'] }}"
    "{% else %}{% for c in message['tool_calls'] %}<{{ c.function.name }}>{% endfor %}{% endif %}",
)
"""Shows calls where there is nothing else, as DeepSeek-R1's does."""
PHI = CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}"
    "{% if message['role'] == 'system' and 'tools' in message %}"
    "{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}{% endif %}",
)
"""Looks for functions in the system message, as Phi-4-mini's does."""
TELLING = "{{ tools | length if tools else 0 }}" + CHATML


def render(source: str, messages: list[dict[str, Any]], **values: Any) -> str:
    return ChatTemplate(source, {}).render(messages, add_generation_prompt=False, **values)


@pytest.mark.parametrize("source", [CHATML, R1])
def test_functions_are_described_as_json_and_how_to_call_them_is_told(source: str) -> None:
    text = render(source, [SYSTEM, USER], tools=TOOLS)
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    described = text.partition("<tools>\n")[2].partition("\n</tools>")[0]
    assert [json.loads(line) for line in described.splitlines()] == [WEATHER, {"name": "n"}]
    assert f"{TAGGED_CALLS}<|im_end|>\n<|im_start|>user\nRain?<|im_end|>" in text
    assert text.count("<|im_start|>system") == 1


def test_what_is_told_becomes_the_system_message_where_there_is_none() -> None:
    text = render(CHATML, [USER], tools=TOOLS)
    assert text.startswith("<|im_start|>system\nYou can call functions.")
    assert text.endswith("<|im_start|>user\nRain?<|im_end|>\n")


@pytest.mark.parametrize(
    "refusal",
    [
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
        "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}",
    ],
)
def test_where_there_can_be_no_system_message_the_user_says_it(refusal: str) -> None:
    text = render(refusal + CHATML, [USER], tools=TOOLS)
    assert text.startswith("<|im_start|>user\nYou can call functions.")
    assert text.endswith(f"{TAGGED_CALLS}\n\nRain?<|im_end|>\n")


@pytest.mark.parametrize("tools", [TOOLS, []])
def test_calls_and_results_are_text_in_the_same_form(tools: list[dict[str, Any]]) -> None:
    assert render(CHATML, CALLED, tools=tools).endswith(SHOWN)
    assert render(R1, CALLED, tools=TOOLS).endswith(SHOWN)


def test_calls_and_results_are_the_templates_where_the_model_is_told_to_call_in_its_own_way() -> (
    None
):
    text = render(R1, CALLED, tools=TOOLS, how_to_call="Write <own>.")
    assert text.startswith("<|im_start|>system\nYou can call functions.")
    assert "Write <own>.<|im_end|>" in text
    assert "I look.<own><own><|im_end|>\n<|im_start|>tool\nwet<|im_end|>" in text


@pytest.mark.parametrize("content", ["I look.", ""])
def test_calls_that_a_template_shows_alone_are_a_message_of_their_own(content: str) -> None:
    called = [USER, {**CALLED[1], "content": content}]
    said = f"<|im_start|>assistant\n{content}<|im_end|>\n" if content else ""
    text = render(ALONE, called)
    calls = "<|im_start|>assistant\n<weather><weather><|im_end|>\n"
    assert text == f"{render(ALONE, [USER])}{said}{calls}"


@pytest.mark.parametrize("messages", [[SYSTEM, USER], [USER]])
def test_functions_are_in_the_system_message_where_the_template_looks_for_them_there(
    messages: list[dict[str, Any]],
) -> None:
    assert ChatTemplate(PHI, {}).tells_tools
    text = render(PHI, messages, tools=TOOLS)
    described = text.partition("<|tool|>")[2].partition("<|/tool|>")[0]
    assert json.loads(described) == [WEATHER, {"name": "n"}]
    assert text.replace(described, "").replace("<|tool|><|/tool|>", "") == (
        render(PHI, [messages[0] if len(messages) > 1 else {**SYSTEM, "content": ""}, USER])
    )
    assert render(PHI, CALLED, tools=TOOLS).endswith(SHOWN)
    assert LISTED_CALLS in render(PHI, messages, tools=TOOLS, how_to_call=LISTED_CALLS)


def test_an_answer_that_has_begun_with_calls_goes_on_behind_them() -> None:
    text = render(CHATML, CALLED[:2], tools=TOOLS, continue_final_message=True)
    assert text.endswith("</tool_call>")


@pytest.mark.parametrize("content", [None, ""])
def test_calls_alone_have_nothing_before_them(content: str | None) -> None:
    bare = {"name": "n", "arguments": ""}
    message = {"role": "assistant", "content": content, "tool_calls": [{"function": bare}]}
    text = render(CHATML, [USER, message])
    assert text.endswith(
        'assistant\n<tool_call>\n{"name": "n", "arguments": {}}\n</tool_call><|im_end|>\n'
    )


def test_another_way_to_call_is_told_instead_to_any_model() -> None:
    text = render(CHATML, [USER], tools=TOOLS, how_to_call=LISTED_CALLS)
    assert f"</tools>\n{LISTED_CALLS}<|im_end|>" in text
    assert TAGGED_CALLS not in text
    assert render(CHATML, [USER], tools=TOOLS, how_to_call="").count("</tools><|im_end|>") == 1
    told = render(TELLING, [SYSTEM, USER], tools=TOOLS, how_to_call=LISTED_CALLS)
    assert told.startswith(f"2<|im_start|>system\nBe brief.\n\n{LISTED_CALLS}<|im_end|>")


def test_a_template_that_tells_of_functions_is_left_alone() -> None:
    assert ChatTemplate(TELLING, {}).tells_tools
    assert not ChatTemplate(R1, {}).tells_tools
    assert not ChatTemplate(None, {}).tells_tools
    assert render(TELLING, [USER], tools=TOOLS) == f"2{render(CHATML, [USER])}"
    assert "<own>" in render(R1, CALLED), "where there are no functions to be told of"
    named = {"default": CHATML, "tool_use": TELLING}
    template = ChatTemplate(named, {})
    assert template.tells_tools
    assert template.render(CALLED).startswith("0"), "the one that knows calls"
    needing = {"default": CHATML, "tool_use": "{% for tool in tools %}x{% endfor %}"}
    text = ChatTemplate(needing, {}).render(CALLED, add_generation_prompt=False)
    assert text == SHOWN, "the other one, where the first needs functions"


NEEDING = "{% for t in tools or [] %}{{ t.function.description + t.function.name }};{% endfor %}"
"""Joins what functions say of themselves, as gpt-oss's does."""
LISTING = "{% for t in tools or [] %}{{ t.function.parameters.properties | length }};{% endfor %}"
"""Looks into parameters, as Hermes' does."""


def test_functions_have_all_that_a_template_needs_of_them() -> None:
    bare = [{"type": "function", "function": {"name": "n"}}]
    assert render(NEEDING + CHATML, [USER], tools=bare).startswith("n;")
    last = [{"type": "function", "function": {"description": "d", "name": "n"}}]
    shown = render(f"{NEEDING}{{{{ tools[0].function | tojson }}}}", [USER], tools=last)
    assert shown.startswith('dn;{"description": "d", "name": "n", "p'), "as it was written"
    assert render(LISTING + CHATML, [USER], tools=bare).startswith("0;")
    as_it_is = "{{ tools[0].function | tojson }}"
    assert render(as_it_is, [USER], tools=bare) == '{"name": "n"}', "where it needs no more"


def test_functions_that_a_template_refuses_are_told_apart_from_messages() -> None:
    source = "{% if tools %}{{ raise_exception('no!') }}{% endif %}{{ messages[1].role }}"
    for messages, param in ((CALLED, "tools"), ([USER], "messages")):
        with pytest.raises(MessagesError, match="no!") as caught:
            render(source, messages, tools=TOOLS)
        assert caught.value.param == param


ONE_CALL = CHATML.replace(
    "{{ message['content'] }}",
    "{% if message['tool_calls'] %}{% if message['tool_calls'] | length != 1 %}"
    "{{ raise_exception('one call at once') }}{% endif %}"
    "<{{ message['tool_calls'][0].function.name }}>{% else %}{{ message['content'] }}{% endif %}",
)
"""Takes one call a message, as Llama 3's does."""
FIRST_CALL = ONE_CALL.replace("{{ raise_exception('one call at once') }}", "")
"""Shows the first call of a message, as gpt-oss's does."""


@pytest.mark.parametrize("source", [ONE_CALL, FIRST_CALL])
def test_calls_are_told_one_by_one_where_a_template_takes_no_more(source: str) -> None:
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in ("a", "b", "c")
    ]
    results = [
        {"role": "tool", "tool_call_id": name, "content": f"of {name}"} for name in ("b", "?", "a")
    ]
    asked = {"role": "assistant", "content": None, "tool_calls": calls}
    text = render(source, [USER, asked, *results, USER])
    said = [each.partition("\n")[2] for each in text.split("<|im_end|>\n")[:-1]]
    assert said == ["Rain?", "<a>", "of a", "<b>", "of b", "<c>", "of ?", "Rain?"]
    assert "<a><b>" not in render(source, [USER, asked]), "before anything came of them"
