"""Promise: calls are read in every format, however the text is cut, and no text is lost."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_answers import USER, cut, heard, parsing

from server.backend.base import Guide
from server.text.tools.table import TOOL_FORMATS

Call = tuple[str, str]

ROME, NOW = ("weather", '{"city": "Rome \\"}]\\"", "days":2}'), ("now", "{}")


def as_json(call: Call, arguments: str = "arguments") -> str:
    return f'{{"name": "{call[0]}", "{arguments}": {call[1]}}}'


def as_list(calls: list[Call]) -> str:
    return f"[{', '.join(map(as_json, calls))}]"


def lines(calls: list[Call]) -> str:
    return "\n".join(map(as_json, calls))


def deepseek(body: str) -> Callable[[list[Call]], str]:
    def write(calls: list[Call]) -> str:
        each = "\n".join(
            f"<｜tool▁call▁begin｜>{body.format(name=name, arguments=arguments)}<｜tool▁call▁end｜>"
            for name, arguments in calls
        )
        return f"<｜tool▁calls▁begin｜>{each}<｜tool▁calls▁end｜>"

    return write


def hermes(calls: list[Call]) -> str:
    return "\n".join(f"<tool_call>\n{as_json(call)}\n</tool_call>" for call in calls)


def kimi(calls: list[Call]) -> str:
    each = "".join(
        f"<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>{arguments}"
        "<|tool_call_end|>"
        for number, (name, arguments) in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{each}<|tool_calls_section_end|>"


def mistral_new(calls: list[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in calls)


def mistral_with_ids(calls: list[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[CALL_ID]a1B2c3D4e[ARGS]{text}" for name, text in calls)


def llama(calls: list[Call]) -> str:
    return "; ".join(as_json(call, "parameters") for call in calls)


def phi(calls: list[Call]) -> str:
    nested = ", ".join(f'{{"type": "function", "function": {as_json(call)}}}' for call in calls)
    return f"<|tool_call|>[{nested}]<|/tool_call|>"


def harmony(calls: list[Call]) -> str:
    return "<|start|>assistant".join(
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{text}<|call|>"
        for name, text in calls
    )


def cohere(calls: list[Call]) -> str:
    each = ",\n".join(
        f'{{"tool_call_id": "{number}", "tool_name": "{name}", "parameters": {text}}}'
        for number, (name, text) in enumerate(calls)
    )
    return f"<|START_ACTION|>[\n{each}\n]<|END_ACTION|>"


def apertus(calls: list[Call]) -> str:
    each = ", ".join(f'{{"{name}": {text}}}' for name, text in calls)
    return f"<|tools_prefix|>[{each}]<|tools_suffix|>"


def behind_each(start: str, end: str = "") -> Callable[[list[Call]], str]:
    return lambda calls: "\n".join(f"{start}{as_json(call)}{end}" for call in calls)


WRITERS: list[tuple[str, Callable[[list[Call]], str]]] = [
    ("hermes", hermes),
    ("hermes", lambda calls: f"<tool_call>{as_list(calls)}</tool_call>"),
    ("mistral", lambda calls: f"[TOOL_CALLS] {as_list(calls)}"),
    ("mistral", mistral_new),
    ("mistral", mistral_with_ids),
    ("deepseek", deepseek("function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```")),
    ("deepseek", deepseek("{name}<｜tool▁sep｜>{arguments}")),
    ("kimi_k2", kimi),
    ("minimax_m1", lambda calls: f"<tool_calls>\n{lines(calls)}\n</tool_calls>"),
    ("minimax_m1", lambda calls: f"<tool_calls>{as_list(calls)}</tool_calls>"),
    ("granite", lambda calls: f"<|tool_call|>{as_list(calls)}"),
    ("nemotron", lambda calls: f"<TOOLCALL>{as_list(calls)}</TOOLCALL>"),
    ("granite", lambda calls: f"<tool_call>{as_list(calls)}"),
    ("phi4", lambda calls: f"functools{as_list(calls)}"),
    ("phi4", phi),
    ("cohere", cohere),
    ("apertus", apertus),
    ("longcat", behind_each("<longcat_tool_call>\n", "\n</longcat_tool_call>")),
    ("internlm", behind_each("<|action_start|><|plugin|>\n", "<|action_end|>")),
    ("gigachat3", behind_each("<|function_call|>")),
    ("granite-20b-fc", behind_each("<function_call> ")),
    ("llama3_json", llama),
    ("llama3_json", lambda calls: f"<|python_tag|>{llama(calls)}"),
    ("harmony", harmony),
]
"""Formats whose arguments are JSON, with ways to write calls in them."""

EVERY = {each.name for each in TOOL_FORMATS}
PIECES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
TEXT = st.text('aé日😀"\\{}[]<>|:,/ \n', max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=3)


@pytest.mark.parametrize(("parser", "write"), WRITERS)
@given(values=OBJECTS, indent=st.sampled_from([None, 1]), pieces=PIECES)
@settings(max_examples=12, deadline=None)
def test_arguments_arrive_byte_for_byte_however_the_text_is_cut(
    parser: str,
    write: Callable[[list[Call]], str],
    values: dict[str, Any],
    indent: int | None,
    pieces: list[int],
) -> None:
    call = ("a-b_c", json.dumps(values, indent=indent, ensure_ascii=False))
    found = heard(parsing(parser), cut(write([call, NOW]), pieces))
    assert found.calls == [call, NOW]
    assert (found.content, found.reasoning, found.finish_reason) == ("", "", "tool_calls")


@pytest.mark.parametrize(("parser", "write"), WRITERS[:-3])
def test_text_around_calls_is_content_with_the_space_behind_or_before_them(
    parser: str, write: Callable[[list[Call]], str]
) -> None:
    for behind, kept in (("\n ", "\n "), ("", "\n\n")):
        text = f"I'll look.\n\n{write([ROME])}{behind}Done. \n"
        for pieces in ([len(text)], [1]):
            found = heard(parsing(parser), cut(text, pieces))
            assert found.content == f"I'll look.{kept}Done. \n"
            assert found.calls == [ROME]


@pytest.mark.parametrize(("parser", "write"), WRITERS)
def test_arguments_stream_while_they_are_written(
    parser: str, write: Callable[[list[Call]], str]
) -> None:
    text = write([ROME])
    begin = text.index(ROME[1])
    made, told = parsing(parser).new(""), ""
    for at, letter in enumerate(text[: begin + len(ROME[1])]):
        told += "".join(delta.arguments for delta in made.feed(letter).calls)
        assert ROME[1].startswith(told)
        assert len(told) >= at - begin  # a backslash may wait for what it escapes
    assert told == ROME[1]


PYTHONIC = (
    """[weather(city='Rome ")] \\'', days=-2, exact=true, options={"a": [1.5, None]}), now()]"""
)


@given(pieces=PIECES)
@settings(max_examples=12, deadline=None)
def test_python_calls_become_json(pieces: list[int]) -> None:
    found = heard(parsing("pythonic"), cut(PYTHONIC, pieces))
    (name, arguments), now = found.calls
    expected = {"city": "Rome \")] '", "days": -2, "exact": True, "options": {"a": [1.5, None]}}
    assert (name, json.loads(arguments), now) == ("weather", expected, NOW)
    assert found.content == ""
    lines = PYTHONIC[1:-1].replace(", now()", "\nnow()")
    for parser, text in (
        ("pythonic", f"<|python_start|>{PYTHONIC}<|python_end|>"),
        ("lfm2", f"<|tool_call_start|>{PYTHONIC}<|tool_call_end|>"),
        ("olmo3", f"<function_calls>\n{lines}\n</function_calls>"),
    ):
        assert heard(parsing(parser), cut(text, pieces)).same() == found.same()


BROKEN = [
    ("hermes", "<tool_call>\nnot JSON\n</tool_call>"),
    ("hermes", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now", "arguments": 7}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now'),
    ("hermes", " if a<b and <tool_ca"),
    ("mistral", "[TOOL_CALLS] and now?"),
    ("mistral", "[TOOL_CALLS]now[ARGS]none"),
    ("deepseek", "<｜tool▁calls▁begin｜>nothing"),
    ("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\nnone\n```"),
    ("phi4", "import functools\n[1, 2] + functools[0]"),
    ("llama3_json", '{"name": "Ada", "parameters": {"age": 36}}'),
    ("llama3_json", '{"name": "now", "age": 36, "parameters": {}}'),
    ("llama3_json", '{"name": "now"}'),
    ("llama3_json", "<|python_tag|>print(1)"),
    ("llama3_json", '  Call {"name": "now", "parameters": {}}'),
    ("pythonic", "[1] is a source, [now] another"),
    ("pythonic", "[weather('Rome')]"),
    ("pythonic", "[weather(city=name)]"),
    ("pythonic", "[weather(days=1e999)]"),
    ("pythonic", "[print(city='Rome')]"),
    ("qwen3_coder", "<tool_call>\n<function=now>\nwhy not?\n</function>"),
    ("qwen3_coder", "<tool_call>\n<function=now>\n<parameter=days>7"),
    ("glm45", "<tool_call>, as I said, </tool_call>"),
    ("glm45", "<tool_call>now\n<arg_key>days</arg_key>\n7</tool_call>"),
    ("minimax_m2", '<minimax:tool_call>\n<invoke name="now">\n7'),
    ("minimax_m1", "<tool_calls>?</tool_calls>"),
    ("gemma4", "<|tool_call>nobody<tool_call|>"),
    ("lfm2", "<|tool_call_start|>[print(1)]<|tool_call_end|>"),
    ("apertus", "<|tools_prefix|>[1]"),
    ("apertus", '<|tools_prefix|>[{"\\ud800": {}}]'),
    ("minimax_m3", "]<]minimax[>[<tool_call>none"),
    ("kimi_k2", "<|tool_calls_section_begin|>functions.now:0"),
    ("kimi_k2", "<|tool_call_begin|>:<|tool_call_argument_begin|>none"),
    ("kimi_k2", "<|tool_call_begin|>call_1a2b<|tool_call_argument_begin|>{}<|tool_call_end|>"),
]


@pytest.mark.parametrize(("parser", "text"), BROKEN)
def test_what_is_no_call_stays_the_text_that_it_is(parser: str, text: str) -> None:
    for pieces in ([len(text)], [1], [3, 2]):
        found = heard(parsing(parser), cut(text, pieces))
        assert found.same() == (text, "", [], "stop")


FRAGMENTS = st.sampled_from(
    [
        *(text for each in TOOL_FORMATS for text in (*each.starts, *each.ends)),
        *('{"name": "now"', '"arguments": {', '"function": {', '{"arguments": "{}"', '"', "\\"),
        *("<function=now>", "<parameter=city>", "</parameter>", "</function>", "```json\n", "now"),
        *"[]{}(),:; \n'=",
        *string.ascii_letters[:4],
        *("null", "1", "functoo", "<tool_", "[now(", "weather(city='"),
    ]
)


@pytest.mark.parametrize("parser", sorted(EVERY))
@given(fragments=st.lists(FRAGMENTS, max_size=30), pieces=PIECES)
@settings(max_examples=30, deadline=None)
def test_no_text_is_lost_or_read_differently_by_where_it_is_cut(
    parser: str, fragments: list[str], pieces: list[int]
) -> None:
    text = "".join(fragments)
    whole = heard(parsing(parser), [text])
    assert heard(parsing(parser), cut(text, pieces)).same() == whole.same()
    if not whole.calls and parser != "harmony":  # whose messages' heads are no text
        assert whole.content == text


def test_what_no_text_can_hold_is_escaped() -> None:
    ((_, arguments),) = heard(parsing("pythonic"), ["[weather(city='\\ud800\\d\u00e9')]"]).calls
    assert arguments == '{"city": "\\ud800\\\\d\\u00e9"}'


def test_a_call_that_breaks_off_keeps_what_came_of_it() -> None:
    for parser, text in (
        ("hermes", '<tool_call>{"name": "weather", "arguments": {"city": "Ro'),
        ("qwen3_coder", "<tool_call><function=weather><parameter=city>Ro"),
        ("glm45", "<tool_call>weather<arg_key>city</arg_key><arg_value>Ro"),
    ):
        found = heard(parsing(parser), cut(text, [3]))
        assert found.same() == ("", "", [("weather", '{"city": "Ro')], "stop")
    text = f'<tool_call>{{"name": "now", "arguments": {{days}}}}</tool_call>{hermes([NOW])}'
    assert heard(parsing("hermes"), [text]).finish_reason == "stop", "not all of them are whole"
    assert parsing("hermes").new("").finish_reason("length") == "length"


CUT = [
    ("hermes", "Hi <tool_ca", "Hi", []),
    ("hermes", "if a <", "if a <", []),
    ("hermes", "Hi <tool_call>", "Hi", []),
    ("hermes", '<tool_call>{"name": "no', "", []),
    ("hermes", f"{hermes([NOW])[:-4]}", "", [NOW]),
    ("hermes", f"{hermes([NOW])}\n<tool_call>{{", "", [NOW]),
    ("phi4", "import func", "import func", []),
    ("qwen3_coder", "<tool_call>\n<function=no", "", []),
    (
        "qwen3_coder",
        "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</para",
        "",
        [("weather", '{"city": "Rome')],
    ),
    ("llama3_json", '{"name": "no', '{"name": "no', []),
    ("pythonic", "[now(), weather(ci", "", [NOW]),
    ("kimi_k2", kimi([NOW, NOW])[:-90], "", [NOW]),
]
"""What a limit can cut off: marks and calls that have only begun are no text, all else is."""


@pytest.mark.parametrize(("parser", "text", "content", "calls"), CUT)
def test_what_is_cut_short_shows_no_mark_and_loses_no_text(
    parser: str, text: str, content: str, calls: list[Call]
) -> None:
    for pieces in ([len(text)], [1], [3, 2]):
        found = heard(parsing(parser), cut(text, pieces), cut_short=True)
        assert found.same() == (content, "", calls, "length")


@given(end=st.integers(min_value=1))
@settings(max_examples=40, deadline=None)
def test_demanded_calls_that_are_cut_short_are_calls_and_no_text(end: int) -> None:
    text = f"[{as_json(ROME, 'parameters')}, {as_json(NOW, 'parameters')}]"
    text = text[: end % len(text)]
    found = heard(parsing("none", choice="required"), cut(text, [3]), cut_short=True)
    assert (found.content, found.finish_reason) == ("", "length")
    for (name, told), (called, arguments) in zip(found.calls, (ROME, NOW), strict=False):
        assert name == called
        assert arguments.startswith(told)


@pytest.mark.parametrize(
    ("inside", "arguments"),
    [
        ('"arguments": {"days": 1}, "name": "weather"', '{"days": 1}'),
        ('"name": "weather", "arguments": "{\\"days\\": 1}"', '{"days": 1}'),
        ('"name": "weather"', "{}"),
        ('"name": "weather", "arguments": null', "{}"),
        (
            '"id": 3, "why": [{"x": "}"}], "name": "weather", "arguments": {"days": 1}',
            '{"days": 1}',
        ),
    ],
)
def test_calls_are_read_in_any_order_and_spelling(inside: str, arguments: str) -> None:
    for pieces in ([99], [1]):
        text = f"<tool_call>{{{inside}}}</tool_call>"
        assert heard(parsing("hermes"), cut(text, pieces)).calls == [("weather", arguments)]


def test_a_broken_call_between_good_ones_is_content() -> None:
    text = f"{hermes([ROME])}<tool_call>?</tool_call>{hermes([NOW])}"
    found = heard(parsing("hermes"), [text])
    assert (found.calls, found.content) == ([ROME, NOW], "<tool_call>?</tool_call>")


def test_ids_are_unique_and_of_the_form_that_templates_take() -> None:
    ids = heard(parsing("hermes"), [hermes([NOW] * 50)]).ids
    assert len(set(ids)) == 50
    assert all(each.startswith("call_") for each in ids)
    (short,) = heard(parsing("mistral"), [mistral_new([NOW])]).ids
    assert len(short) == 9
    assert short.isalnum()
    (demanded,) = heard(parsing("mistral", choice="required"), [as_list([NOW])]).ids
    assert len(demanded) == 9
    assert heard(parsing("kimi_k2"), [kimi([NOW, NOW])]).ids == [
        "functions.now:0",
        "functions.now:1",
    ]
    again = kimi([NOW]).replace(":0", ":5") * 2 + kimi([NOW]).replace(":0", ":1")
    assert heard(parsing("kimi_k2"), [again]).ids == [
        "functions.now:5",
        "functions.now:1",
        "functions.now:2",
    ]
    call = {"id": "functions.now:0", "function": {"name": "now", "arguments": "{}"}}
    before = [{"role": "assistant", "content": "", "tool_calls": [call]}, USER]
    counted = parsing("kimi_k2", choice="required", messages=before)
    assert heard(counted, [as_list([NOW])]).ids == ["functions.now:1"]
    free = parsing("kimi_k2", messages=before)
    assert heard(free, [kimi([NOW])]).ids == ["functions.now:1"], "whatever the model counts from"


def test_without_parallel_calls_the_first_is_the_only_one() -> None:
    found = heard(parsing("hermes", parallel=False), cut(hermes([ROME, NOW]), [3]))
    assert (found.calls, found.content) == ([ROME], "")


@given(pieces=PIECES)
@settings(max_examples=12, deadline=None)
def test_calls_that_were_demanded_are_read_from_their_json(pieces: list[int]) -> None:
    text = f" [ {as_json(ROME, 'parameters')} ,\n{as_json(NOW, 'parameters')} ]\n"
    found = heard(parsing("none", choice="required"), cut(text, pieces))
    assert found.same() == ("", "", [ROME, NOW], "tool_calls")
    found = heard(parsing("none", choice="named", named="weather"), cut(f" {ROME[1]}\n", pieces))
    assert found.same() == ("", "", [ROME], "stop")


OBJECT = Guide(kind="json")
LIST = Guide(kind="json_schema", text='{"type": ["array", "string"]}')


@given(pieces=PIECES)
@settings(max_examples=12, deadline=None)
def test_an_answer_that_may_be_calls_or_a_form_is_calls_where_it_begins_like_them(
    pieces: list[int],
) -> None:
    calls = f" [ {as_json(ROME, 'parameters')} ,\n{as_json(NOW, 'parameters')} ]"
    found = heard(parsing("none", guide=OBJECT), cut(calls, pieces))
    assert found.same() == ("", "", [ROME, NOW], "tool_calls")
    found = heard(parsing("none", guide=LIST), cut(f' {{ "tool_calls" :{calls} }}\n', pieces))
    assert found.same() == ("", "", [ROME, NOW], "tool_calls")


FORMS = [
    (OBJECT, ' {"name": "now", "parameters": {}}\n'),
    (OBJECT, '{"tool_calls": [{"name": "now", "parameters": {}}]}'),
    (OBJECT, '{\n\t"a" :  [ 1.50 ] }  '),
    (LIST, ' [ {"name": "now", "parameters": {}} ] '),
    (LIST, '"{"tool_calls": []}"'),
    (LIST, '{"tool_ca'),
]


@pytest.mark.parametrize(("form", "text"), FORMS)
def test_a_form_is_content_byte_for_byte_and_as_it_comes(form: Guide, text: str) -> None:
    for pieces in ([len(text)], [1], [3, 2]):
        found = heard(parsing("none", guide=form), cut(text, pieces))
        assert found.same() == (text, "", [], "stop")
    parser, told = parsing("none", guide=OBJECT).new(""), ""
    for letter in '{"answer":"R':
        told += parser.feed(letter).content
    assert told == '{"answer":"R'


def test_a_form_of_a_thinking_model_is_not_taken_for_thoughts() -> None:
    how = parsing("hermes", reasoning="think", guide=OBJECT)
    assert heard(how, ['{"a": "<tool_call>"}'], tail="<think>\n").content == '{"a": "<tool_call>"}'
