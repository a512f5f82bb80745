"""Promise: a model's parsers are found by its template, or are those that were asked for."""

from __future__ import annotations

import pytest
from split_answers import TOOLS, request

from server.backend.base import Guide
from server.errors import InvalidRequestError, UnknownParserError
from server.protocol.request import TextPrompt, TextRequest
from server.text.parser import REASONING_PARSERS, TOOL_PARSERS, ParserChoice, parsing_for

TEMPLATES = [
    ("respond with <tool_call>\\n{\"name\": <function-name>}\\n</tool_call>", "hermes"),
    ("<tool_call>\\n<function=example>\\n<parameter=a>\\n1\\n</parameter>", "qwen3_coder"),
    ("<tool_call>{{ name }}<arg_key>{{ k }}</arg_key>", "glm45"),
    ("]<]minimax[>[<tool_call>", "minimax_m3"),
    ("<" + "｜DSML｜" + "function_calls>", "deepseek_v32"),
    ("{% set dsml = '｜DSML｜' %}<{{ dsml }}tool_calls>", "deepseek_v4"),
    ("'<tool_calls{}>'.format(x) '<tool_sep{}>'.format(x)", "hy_v3"),
    ("{{ '<|tool_call>call:' + name + '{' }}", "gemma4"),
    ("<start_function_call>call:", "functiongemma"),
    ("<|START_ACTION|>[", "cohere"),
    ("{{ '<|tools_prefix|>' }}", "apertus"),
    ("{{ '<|action_start|>' + '<|plugin|>' }}", "internlm"),
    ("{{ '<|function_call|>' }}", "gigachat3"),
    ("<longcat_tool_call>", "longcat"),
    ("<function_call> ", "granite-20b-fc"),
    ('<function name="f"><param name="p">', "minicpm5"),
    ("<|tool_call_start|>[f()]", "lfm2"),
    ("wrapped in <function_calls></function_calls>", "olmo3"),
    ("<minimax:tool_call><invoke name=", "minimax_m2"),
    ("<tool_calls>\\n{\"name\": <tool-name>}\\n</tool_calls>", "minimax_m1"),
    ("{{ '<|tool_call_begin|>' + call['id'] }}", "kimi_k2"),
    ("{{ '<|im_system|>tool_declare<|im_middle|>' }}", "kimi_k2"),
    ("{{ '<|channel|>commentary json<|message|>' }}", "harmony"),
    ("{{ '<function=' }}<|python_tag|>", None),
    ("{{ '[TOOL_CALLS]' }}{{ '[/THINK]' }}", "mistral"),
    ("{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' }}", "deepseek"),
    ("{{ '<｜tool▁call▁begin｜>' }}```json{{ '<｜tool▁call▁end｜>' }}", "deepseek_v3"),
    ("{{ '<|tool_call|>' }}", "granite"),
    ("{{ '<|tool|>' + tools + '<|/tool|>' }}", "phi4"),
    ("<|tool_call|>{}<|/tool_call|>", "phi4"),
    ("all calls in a single list, functools[{...}]", "phi4"),
    ("{{ '<|python_tag|>' }}", "llama3_json"),
    ('Respond in the format {"name": function name, "parameters": dictionary of argument name '
     "and its value}.", "llama3_json"),
    ("Respond in the format [func_name1(params_name1=params_value1), func_name2()]", "pythonic"),
    ("<TOOLCALL>[{}]</TOOLCALL>", "nemotron"),
    ("<seed:tool_call>\\n<function=f>\\n<parameter=a>", "seed_oss"),
    ("{{ messages[0].content }}", None),
    (None, None),
]  # fmt: skip


@pytest.mark.parametrize(("template", "expected"), TEMPLATES)
def test_the_tool_parser_is_told_by_what_the_template_writes(
    template: str | None, expected: str | None
) -> None:
    tools = ParserChoice.of(template, ()).tools
    assert (tools.name if tools else None) == expected


@pytest.mark.parametrize(
    ("template", "vocabulary", "expected"),
    [
        ("{{ '<think>\\n\\n</think>' }}", (), "think"),
        ("{{ content.split('</think>')[-1] }}", (), "think"),
        ("{{ '<seed:think>' }}", (), "seed_oss"),
        ("{{ '<|channel|>analysis<|message|>' }}", (), "harmony"),
        ("[THINK]draft[/THINK]", (), "mistral"),
        ("write 'Here is my thought process:'", (), "granite"),
        ("<|START_THINKING|>", (), "cohere"),
        ("'<|channel>thought\n<channel|>'", (), "gemma4"),
        ("</mm:think>", (), "minimax_m3"),
        ("'</think{}>'.format(x)", (), "hy_v3"),
        ("<|inner_prefix|>", (), "apertus"),
        ("plain", ("<think>", "</think>"), "think"),
        ("plain", ("<think>",), None),
        ("plain", (), None),
    ],
)
def test_the_reasoning_parser_is_told_by_template_or_vocabulary(
    template: str, vocabulary: tuple[str, ...], expected: str | None
) -> None:
    reasoning = ParserChoice.of(template, vocabulary).reasoning
    assert (reasoning.name if reasoning else None) == expected


def test_parsers_can_be_forced_by_their_own_and_other_servers_names() -> None:
    forced = ParserChoice.of("<tool_call>", (), tool_parser="mistral", reasoning_parser="qwen3")
    assert forced.tools
    assert forced.reasoning
    assert (forced.tools.name, forced.reasoning.name) == ("mistral", "think")
    none = ParserChoice.of("<tool_call><think>", (), tool_parser="none", reasoning_parser="none")
    assert (none.tools, none.reasoning) == (None, None)


@pytest.mark.parametrize(
    ("which", "known"), [("tool_parser", TOOL_PARSERS), ("reasoning_parser", REASONING_PARSERS)]
)
def test_an_unknown_parser_is_refused_with_the_known_ones(
    which: str, known: tuple[str, ...]
) -> None:
    with pytest.raises(UnknownParserError, match="'what'") as caught:
        ParserChoice.of("", (), **{which: "what"})
    assert all(name in str(caught.value) for name in known)


def test_tools_that_the_model_cant_call_are_refused_unless_calls_are_wanted_as_text() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsing_for(ParserChoice.of("plain", ()), request())
    assert caught.value.param == "tools"
    off = ParserChoice.of("plain", (), tool_parser="none")
    assert parsing_for(off, request()) is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [("<|tool_call_begin|>", "hermes"), ("", "hermes"), ("<｜tool▁call▁begin｜>", "deepseek")],
)
def test_a_model_whose_template_tells_of_no_functions_calls_them_as_we_tell_it(
    template: str, expected: str
) -> None:
    untold = ParserChoice.of(template, (), tools_told=False)
    assert untold.tools
    assert untold.tools.name == expected
    forced = ParserChoice.of("", (), tools_told=False, tool_parser="deepseek")
    assert forced.tools
    assert forced.tools.name == "deepseek"
    off = ParserChoice.of("", (), tools_told=False, tool_parser="none")
    with pytest.raises(InvalidRequestError, match="--tool-parser none") as caught:
        parsing_for(off, request())
    assert caught.value.param == "tools"


def test_nothing_is_parsed_where_all_text_is_content() -> None:
    both = ParserChoice.of("<tool_call> <think>", ())
    plain = TextRequest(model="m", prompts=[TextPrompt(text="a")], prompt_param="prompt")
    assert parsing_for(both, plain) is None
    held = request(choice=None, guide=Guide(kind="json"))
    assert parsing_for(both, held) is None
    assert parsing_for(ParserChoice(), request(choice=None)) is None
    without_tools = parsing_for(both, request(choice=None))
    assert without_tools
    assert without_tools.markers == {"<think>", "</think>"}
    with_tools = parsing_for(both, request(tools=TOOLS))
    assert with_tools
    assert with_tools.markers == {"<think>", "</think>", "<tool_call>", "</tool_call>"}
