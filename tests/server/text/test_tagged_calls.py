"""Promise: arguments in tags become what the function's schema says, however the text is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_answers import cut, heard, parsing

NOW = ("now", "{}")
PIECES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
TEXT = st.text('aé日😀"\\{}[]<>|:,/ \n', max_size=8)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "city": TEXT,
        "days": st.integers(),
        "exact": st.none() | st.booleans(),
        "options": st.dictionaries(TEXT, st.lists(TEXT | st.integers(), max_size=2), max_size=2),
    },
)
Values = dict[str, Any]


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def equals(name: str, values: Values) -> str:
    each = (f"<parameter={k}>\n{text_of(v)}\n</parameter>\n" for k, v in values.items())
    return f"<tool_call>\n<function={name}>\n{''.join(each)}</function>\n</tool_call>"


def glm(name: str, values: Values, between: str = "\n") -> str:
    each = (
        f"{between}<arg_key>{k}</arg_key>{between}<arg_value>{text_of(v)}</arg_value>"
        for k, v in values.items()
    )
    return f"<tool_call>{name}{''.join(each)}{between}</tool_call>"


def minimax(name: str, values: Values) -> str:
    each = (f'<parameter name="{k}">{text_of(v)}</parameter>\n' for k, v in values.items())
    return f'<invoke name="{name}">\n{"".join(each)}</invoke>\n'


def minimax_section(name: str, values: Values) -> str:
    return f"<minimax:tool_call>\n{minimax(name, values)}{minimax('now', {})}</minimax:tool_call>"


def dsml(section: str) -> Callable[[str, Values], str]:
    def write(name: str, values: Values) -> str:
        each = "\n".join(
            f'<｜DSML｜parameter name="{k}" string="{str(isinstance(v, str)).lower()}">{text_of(v)}'
            "</｜DSML｜parameter>"
            for k, v in values.items()
        )
        return f'<｜DSML｜invoke name="{name}">\n{each}\n</｜DSML｜invoke>\n'

    return lambda name, values: (
        f"<｜DSML｜{section}>\n{write(name, values)}{write('now', {})}</｜DSML｜{section}>"
    )


def hunyuan(name: str, values: Values) -> str:
    def write(name: str, values: Values) -> str:
        each = "".join(
            f"<arg_key:opensource>{k}</arg_key:opensource>\n"
            f"<arg_value:opensource>{text_of(v)}</arg_value:opensource>\n"
            for k, v in values.items()
        )
        body = f"{name}<tool_sep:opensource>\n{each}"
        return f"<tool_call:opensource>{body}</tool_call:opensource>\n"

    both = write(name, values) + write("now", {})
    return f"<tool_calls:opensource>\n{both}</tool_calls:opensource>"


def gemma_text(value: Any) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        each = (f'<|"|>{k}<|"|>:{gemma_text(v)}' for k, v in value.items())
        return f"{{{','.join(each)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(gemma_text, value))}]"
    return json.dumps(value)


def gemma(name: str, values: Values) -> str:
    each = ",".join(f"{k}:{gemma_text(v)}" for k, v in values.items())
    return f"<|tool_call>call:{name}{{{each}}}<tool_call|><|tool_call>call:now{{}}<tool_call|>"


def minicpm(name: str, values: Values) -> str:
    each = (f'<param name="{k}"><![CDATA[{text_of(v)}]]></param>' for k, v in values.items())
    return f'<function name="{name}">{"".join(each)}</function>\n<function name="now"></function>'


WRITERS: list[tuple[str, Callable[[str, Values], str]]] = [
    ("qwen3_coder", lambda name, values: f"{equals(name, values)}\n{equals('now', {})}"),
    ("glm45", lambda name, values: f"{glm(name, values)}\n{glm('now', {})}"),
    ("glm45", lambda name, values: f"{glm(name, values, '')}{glm('now', {}, '')}"),
    ("minimax_m2", minimax_section),
    ("deepseek_v32", dsml("function_calls")),
    ("deepseek_v4", dsml("tool_calls")),
    ("hy_v3", hunyuan),
    ("gemma4", gemma),
    ("minicpm5", minicpm),
]
"""What the models' templates write for a call, and one of `now` behind it."""


@pytest.mark.parametrize(("parser", "write"), WRITERS)
@given(values=ARGUMENTS, pieces=PIECES)
@settings(max_examples=25, deadline=None)
def test_what_a_template_writes_is_read_back(
    parser: str, write: Callable[[str, Values], str], values: Values, pieces: list[int]
) -> None:
    found = heard(parsing(parser), cut(f"I'll look.\n{write('a-b_c', values)}", pieces))
    (name, arguments), now = found.calls
    assert (name, json.loads(arguments), now) == ("a-b_c", values, NOW)
    assert (found.content, found.reasoning, found.finish_reason) == ("I'll look.", "", "tool_calls")


@pytest.mark.parametrize(("parser", "write"), WRITERS)
def test_strings_stream_while_they_are_written(
    parser: str, write: Callable[[str, Values], str]
) -> None:
    city = "Rome, 'é'"
    text = write("weather", {"city": city})
    begin = text.index(city)
    made, told = parsing(parser).new(""), ""
    for at, letter in enumerate(text[: begin + len(city)]):
        told += "".join(delta.arguments for delta in made.feed(letter).calls)
        if at >= begin:
            assert told == f'{{"city": "{city[: at + 1 - begin]}'


TAGGED = """Let me see.
<tool_call>
<function=weather>
<parameter=city>
"Rome"
 <b> & co
</parameter>
<parameter=days>
 2
</parameter>
<parameter=exact>
True
</parameter>
<parameter=options>
{"a":  [1.50, null]}
</parameter>
<parameter=unknown>7</parameter>
</function>
</tool_call>
<tool_call>
<function=now>
</function>
</tool_call>"""


NESTED = """]<]minimax[>[<tool_call>
]<]minimax[>[<invoke name="weather">]<]minimax[>[<city> Rome & <b>]<]minimax[>[</city>\
]<]minimax[>[<days>2]<]minimax[>[</days>]<]minimax[>[<options>]<]minimax[>[<a>\
]<]minimax[>[<item>x]<]minimax[>[</item>]<]minimax[>[<item>]<]minimax[>[<b>1]<]minimax[>[</b>\
]<]minimax[>[</item>]<]minimax[>[</a>]<]minimax[>[</options>]<]minimax[>[</invoke>
]<]minimax[>[<invoke name="now">]<]minimax[>[</invoke>
]<]minimax[>[</tool_call>"""


@given(pieces=PIECES)
@settings(max_examples=12, deadline=None)
def test_nested_elements_become_objects_and_lists(pieces: list[int]) -> None:
    (name, arguments), now = heard(parsing("minimax_m3"), cut(NESTED, pieces)).calls
    assert (name, now) == ("weather", NOW)
    options = {"a": ["x", {"b": "1"}]}
    assert json.loads(arguments) == {"city": " Rome & <b>", "days": 2, "options": options}


@pytest.mark.parametrize("kind", ["true", "false"])
def test_what_a_model_says_of_a_value_holds_where_its_schema_says_nothing(kind: str) -> None:
    body = "".join(
        f'<｜DSML｜parameter name="{key}" string="{kind}">42</｜DSML｜parameter>'
        for key in ("city", "days", "unknown")
    )
    call = f'<｜DSML｜invoke name="weather">{body}</｜DSML｜invoke>'
    text = f"<｜DSML｜tool_calls>{call}</｜DSML｜tool_calls>"
    ((_, arguments),) = heard(parsing("deepseek_v4"), [text]).calls
    unknown = "42" if kind == "true" else 42
    assert json.loads(arguments) == {"city": "42", "days": 42, "unknown": unknown}


def test_brackets_without_end_break_a_call_off() -> None:
    for parser, text in (
        ("gemma4", "<|tool_call>call:now{options:" + "[" * 9999),
        ("minimax_m3", NESTED[: NESTED.index("<city>")] + "<a>]<]minimax[>[" * 9999),
    ):
        assert heard(parsing(parser), [text]).finish_reason == "stop"


@given(pieces=PIECES)
@settings(max_examples=12, deadline=None)
def test_tagged_values_become_what_the_schema_says(pieces: list[int]) -> None:
    found = heard(parsing("qwen3_coder"), cut(TAGGED, pieces))
    (name, arguments), now = found.calls
    assert (name, now, found.content) == ("weather", NOW, "Let me see.")
    assert json.loads(arguments) == {
        "city": '"Rome"\n <b> & co',
        "days": 2,
        "exact": True,
        "options": {"a": [1.5, None]},
        "unknown": "7",
    }
    assert '"options": {"a":  [1.50, null]}' in arguments  # JSON stays as it was written
    seed = TAGGED.replace("tool_call>", "seed:tool_call>")
    assert heard(parsing("seed_oss"), cut(seed, pieces)).same() == found.same()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("city", "42", "42"),
        ("city", "\n\n 42 \n\n", "\n 42 \n"),
        ("city", "null", "null"),
        ("exact", "null", None),
        ("exact", "None", None),
        ("exact", "false", False),
        ("days", "many", "many"),
        ("days", "NaN", "NaN"),
        ("options", "{'a': (1, None)}", {"a": [1, None]}),
        ("options", "[" * 9999, "[" * 9999),
    ],
)
def test_a_tagged_value_is_a_string_where_its_schema_or_text_allow_nothing_else(
    key: str, text: str, value: Any
) -> None:
    body = f"<function=weather><parameter={key}>{text}</parameter></function>"
    ((_, arguments),) = heard(parsing("qwen3_coder"), [f"<tool_call>{body}</tool_call>"]).calls
    assert json.loads(arguments) == {key: value}


def test_a_schema_that_makes_no_sense_is_no_reason_to_fail() -> None:
    properties = {"city": {"type": [5, {}], "anyOf": 7, "oneOf": [None]}, "days": 3}
    tools = [{"function": {"name": "now", "parameters": {"properties": properties}}}]
    values = "".join(f"<parameter={key}>1</parameter>" for key in properties)
    text = f"<tool_call><function=now>{values}</function></tool_call>"
    found = heard(parsing("qwen3_coder", tools=tools), [text])
    assert found.calls == [("now", '{"city": "1", "days": "1"}')]


UNENDED = [
    ("qwen3_coder", equals("weather", {"city": "Rome"}).replace("</function>\n", "")),
    ("seed_oss", equals("weather", {"city": "Rome"}).replace("</function>\n", "")),
    ("qwen3_coder", equals("weather", {"city": "Rome"}).partition("</function>")[0]),
    ("glm45", glm("weather", {"city": "Rome"}).replace("</tool_call>", "")),
    ("minimax_m2", minimax_section("weather", {"city": "Rome"}).replace("</invoke>", "", 1)),
]
"""A call of which only the end is missing, in MiniMax's way with one of `now` behind it."""


@pytest.mark.parametrize(("parser", "text"), UNENDED)
@pytest.mark.parametrize("more", [True, False])
def test_a_call_whose_values_are_whole_is_whole_without_its_end(
    parser: str, text: str, more: bool
) -> None:
    behind = glm("now", {}) if parser == "glm45" else equals("now", {})
    if parser == "seed_oss":
        text, behind = (each.replace("tool_call>", "seed:tool_call>") for each in (text, behind))
    follows = more and parser != "minimax_m2"
    for pieces in ([999], [1], [3, 2]):
        found = heard(parsing(parser), cut(text + behind if follows else text, pieces))
        calls = [("weather", '{"city": "Rome"}'), NOW][: 1 + (follows or parser == "minimax_m2")]
        assert found.same() == ("", "", calls, "tool_calls")
