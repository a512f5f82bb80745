"""Promise: a prompt says of its answer what the model must know, and opens no thoughts in vain."""

from __future__ import annotations

from typing import Any

import pytest
from small_tokenizers import CHATML

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.protocol.request import ChatPrompt, TextRequest, ToolUse
from server.text.parser import ParserChoice
from server.text_model.rendering import Renderer
from text.chat_template import ChatTemplate
from text.told_tools import LISTED_CALLS, TAGGED_CALLS, WRAPPED_CALLS

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FORM = Guide(kind="json")
LIST = Guide(kind="json_schema", text='{"type": "array"}')
QWEN = CHATML + "{% if enable_thinking is defined %}[{{ enable_thinking }}]{% endif %}</think>"
DEEPSEEK = "{% if not thinking is defined %}{% set thinking = 1 %}{% endif %}{{ thinking }}"
OPENING = CHATML + "{{ '<think>\\n' }}"
REQUIRED = ToolUse(tools=[TOOL], choice="required")
NAMED = ToolUse(tools=[TOOL], choice="named", named="f")
AUTO = ToolUse(tools=[TOOL])
HELD = [{"guide": FORM}, {"use": REQUIRED}, {"use": NAMED}, {"use": AUTO, "guide": FORM}]


def rendered(
    source: str,
    *,
    guide: Guide | None = None,
    use: ToolUse | None = None,
    param: str = "messages",
    tool_parser: str = "auto",
    **variables: Any,
) -> str:
    template = ChatTemplate(source, {})
    told = template.tells_tools
    parsers = ParserChoice.of(source, (), tools_told=told, tool_parser=tool_parser)
    tools = use.tools if use else ()
    prompt = ChatPrompt(messages=[USER], variables=variables, tools=tools)
    request = TextRequest(model="m", prompts=[prompt], prompt_param=param, guide=guide, tools=use)
    return Renderer(template, parsers).render(prompt, param, request)


@pytest.mark.parametrize("held", HELD)
def test_where_an_answer_is_held_templates_are_told_that_nothing_is_thought(held: Any) -> None:
    assert "[False]" in rendered(QWEN, **held)
    assert "[True]" in rendered(QWEN, **held, enable_thinking=True), "the request says otherwise"
    assert rendered(DEEPSEEK, guide=FORM) == "False"


def test_an_effort_is_to_think_or_not_where_a_template_knows_no_more() -> None:
    assert rendered(QWEN, reasoning_effort="none").endswith("[False]</think>")
    assert rendered(QWEN, reasoning_effort="low").endswith("[True]</think>")
    assert rendered(DEEPSEEK, reasoning_effort="high") == "True"
    said = rendered(QWEN, reasoning_effort="high", enable_thinking=False)
    assert said.endswith("[False]</think>"), "the template's own name is heard first"
    assert "[False]" in rendered(QWEN, reasoning_effort="high", guide=FORM), "a form has no room"


@pytest.mark.parametrize(
    ("effort", "known"),
    [("none", "low"), ("minimal", "low"), ("medium", "medium"), ("max", "high")],
)
def test_an_effort_is_the_nearest_that_the_model_knows(effort: str, known: str) -> None:
    source = "{{ reasoning_effort }}"
    harmony = f"{source}{{# <|channel|>analysis #}}"
    assert rendered(harmony, reasoning_effort=effort) == known
    assert rendered(source, reasoning_effort=effort) == effort, "where no more is known of it"


@pytest.mark.parametrize("use", [None, AUTO])
def test_free_answers_think_as_the_template_wants(use: ToolUse | None) -> None:
    assert "[" not in rendered(QWEN, use=use).rpartition("<|im_end|>")[2]
    assert rendered(OPENING, use=use).endswith("<think>\n")


@pytest.mark.parametrize("held", HELD)
def test_thoughts_that_a_template_opens_are_closed_where_an_answer_is_held(held: Any) -> None:
    assert rendered(OPENING, **held).endswith("assistant\n<think>\n\n</think>\n\n")
    assert rendered(f"{CHATML}<think>", **held).endswith("<think>\n\n</think>\n\n")
    assert rendered(CHATML, **held).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("held", HELD)
def test_an_answer_of_channels_that_is_held_is_in_the_final_one(held: Any) -> None:
    harmony = f"{CHATML}{{# <|channel|>analysis #}}<|start|>assistant"
    assert rendered(harmony, **held).endswith("<|start|>assistant<|channel|>final<|message|>")
    assert rendered(harmony).endswith("<|start|>assistant")


def test_how_to_call_is_told_as_the_answer_is_read() -> None:
    assert TAGGED_CALLS in rendered(CHATML, use=AUTO)
    assert LISTED_CALLS in rendered(CHATML, use=AUTO, guide=FORM)
    assert WRAPPED_CALLS in rendered(CHATML, use=AUTO, guide=LIST)
    assert LISTED_CALLS in rendered(f"{{{{ tools }}}}{CHATML}", use=AUTO, guide=FORM)
    own = rendered(f"{CHATML}{{# <｜tool▁call▁begin｜> #}}", use=AUTO)
    assert "name<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>" in own
    assert TAGGED_CALLS not in own
    forced = rendered(CHATML, use=AUTO, tool_parser="mistral")
    assert "<tools>" in forced
    assert "<tool_call>" not in forced, "it is read otherwise"


@pytest.mark.parametrize(
    ("param", "called"), [("messages", "reasoning_effort"), ("input", "reasoning.effort")]
)
def test_an_effort_that_a_template_has_no_place_for_is_refused_by_the_clients_name(
    param: str, called: str
) -> None:
    with pytest.raises(InvalidRequestError, match=called) as caught:
        rendered(CHATML, param=param, reasoning_effort="high")
    assert caught.value.param == called
