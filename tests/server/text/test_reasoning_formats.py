"""Promise: what a model thinks is told from what it answers, wherever the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_answers import USER, cut, heard, parsing

ANSWERS = [
    ("think", "", "<think>\nHm </th.\n</think>\n\nHi.\n", "Hm </th.", "Hi.\n"),
    ("think", "assistant\n<think>\n", "\nHm\n\n</think>\n\nHi.", "Hm", "Hi."),
    ("think", "<think>", "<think>Hm</think>Hi.", "Hm", "Hi."),
    ("think", "<think>\n\n</think>\n\n", "Hi.", "", "Hi."),
    ("think", "say <think>\nassistant\n", "\n Hi <think>.", "", "\n Hi <think>."),
    ("think", "<think>\n", "Hm. So", "Hm. So", ""),
    ("think", "", "<thi", "", "<thi"),
    ("think", "</think>", "</think>\n\nHi.", "", "Hi."),
    ("cohere", "", "<|START_THINKING|>Hm<|END_THINKING|>Hi.", "Hm", "Hi."),
    ("gemma4", "", "<|channel>thought\nHm\n<channel|>Hi.", "Hm", "Hi."),
    ("minimax_m3", "", "</mm:think>Hi.", "", "Hi."),
    ("hy_v3", "<think:opensource>", "Hm</think:opensource>Hi.", "Hm", "Hi."),
    ("apriel", "Here are my reasoning steps:\n", "Hm\n[BEGIN FINAL RESPONSE]\nHi.", "Hm", "Hi."),
    ("seed_oss", "", "<seed:think>Hm</seed:think>Hi.", "Hm", "Hi."),
    ("mistral", "", "[THINK]Hm[/THINK]Hi.", "Hm", "Hi."),
    ("granite", "", "Here is my thought process: Hm\n\nHere is my response: Hi.", "Hm", "Hi."),
    ("granite", "", "Here's my thought process: Hm Here's my response: Hi.", "Hm", "Hi."),
    ("granite", "", "Here is my cat.", "", "Here is my cat."),
]


@pytest.mark.parametrize(("parser", "tail", "text", "reasoning", "content"), ANSWERS)
@given(pieces=st.lists(st.integers(1, 9), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None)
def test_reasoning_is_split_from_content(
    parser: str, tail: str, text: str, reasoning: str, content: str, pieces: list[int]
) -> None:
    for tools in (None, "auto"):
        how = parsing("hermes", parser, choice=tools)
        found = heard(how, cut(text, pieces), tail=tail)
        assert found.same() == (content, reasoning, [], "stop")


def test_reasoning_comes_before_calls_and_what_looks_like_one_in_it_is_none() -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    text = f"I could {call}, yes.\n</think>\n\nLet me see.\n{call}"
    for pieces in ([len(text)], [1]):
        found = heard(parsing("hermes", "think"), cut(text, pieces), tail="<think>\n")
        assert found.reasoning == f"I could {call}, yes."
        assert (found.content, found.calls) == ("Let me see.", [("now", "{}")])


def test_models_that_call_while_they_think_have_ended_their_thoughts() -> None:
    text = "A <tool_call>? Yes.\n<tool_call>\n<function=now>\n</function>\n</tool_call>"
    for pieces in ([len(text)], [1]):
        found = heard(parsing("qwen3_coder", "think"), cut(text, pieces), tail="<think>\n")
        assert found.reasoning == "A <tool_call>? Yes."
        assert (found.content, found.calls) == ("", [("now", "{}")])


def test_a_section_of_calls_ends_the_thoughts_of_models_that_forget_to() -> None:
    text = (
        "Rain?<|tool_calls_section_begin|><|tool_call_begin|>functions.now:3"
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    )
    found = heard(parsing("kimi_k2", "think"), cut(text, [3]), tail="<think>")
    assert found.same() == ("", "Rain?", [("now", "{}")], "tool_calls")
    assert found.ids == ["functions.now:3"]


GLM_CALL = "<tool_call>now</tool_call>"
GLM_BEGUN = "<tool_call>now<arg_key>city</arg_key><arg_value>so on"
GLM_WHOLE = f"{GLM_BEGUN}</arg_value></tool_call>"
NOW = ("now", "{}")
THOUGHTS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    (f"I use {GLM_CALL}", "I use", "", [NOW]),
    (f"I use {GLM_CALL}\n{GLM_CALL}\n</think>\n", "I use", "", [NOW, NOW]),
    (f"Not <tool_call>, but {GLM_CALL}</think>", "Not <tool_call>, but", "", [NOW]),
    (f"I use {GLM_WHOLE}</think>", "I use", "", [("now", '{"city": "so on"}')]),
    (f"I use {GLM_CALL} maybe", f"I use {GLM_CALL} maybe", "", []),
    (f"I use {GLM_CALL}</think>\n\nHi", f"I use {GLM_CALL}", "Hi", []),
    (f"I use {GLM_CALL} maybe</think>\n\nHi", f"I use {GLM_CALL} maybe", "Hi", []),
    (f"I use {GLM_CALL}</think>{GLM_CALL}", f"I use {GLM_CALL}", "", [NOW]),
    (f"I use {GLM_BEGUN}.</think>Hi {GLM_CALL}", f"I use {GLM_BEGUN}.", "Hi", [NOW]),
    ("I use <tool_call>nobody</tool_call>", "I use <tool_call>nobody</tool_call>", "", []),
]
"""Calls in thoughts are calls where nothing but the thoughts' end comes behind them."""


@pytest.mark.parametrize(("text", "reasoning", "content", "calls"), THOUGHTS)
def test_calls_in_thoughts_are_mentions_where_anything_follows_them(
    text: str, reasoning: str, content: str, calls: list[tuple[str, str]]
) -> None:
    for pieces in ([len(text)], [1], [3, 2, 7]):
        found = heard(parsing("glm45", "think"), cut(text, pieces), tail="<think>\n")
        assert found.same() == (content, reasoning, calls, "tool_calls" if calls else "stop")


@given(
    parts=st.lists(
        st.sampled_from(
            [GLM_CALL, GLM_BEGUN, "</arg_value></tool_call>", "</think>", " ", "\n", "so", "<tool_"]
        ),
        max_size=8,
    ),
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    cut_short=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_where_thoughts_are_cut_into_pieces_never_shows(
    parts: list[str], pieces: list[int], cut_short: bool
) -> None:
    text, how = "".join(parts), parsing("glm45", "think")
    whole = heard(how, [text], tail="<think>\n", cut_short=cut_short)
    found = heard(how, cut(text, pieces), tail="<think>\n", cut_short=cut_short)
    assert found.same() == whole.same()


def test_a_mention_of_a_call_holds_back_no_thoughts() -> None:
    parser = parsing("glm45", "think").new("<think>\n")
    assert parser.feed(f"I use {GLM_CALL} or so").reasoning == f"I use {GLM_CALL} or so"


def test_half_a_mark_is_no_thought_where_the_answer_was_cut_short() -> None:
    for cut_short, reasoning in ((True, "Hm"), (False, "Hm </thi")):
        found = heard(parsing("none", "think"), ["<think>Hm </thi"], cut_short=cut_short)
        assert (found.reasoning, found.content) == (reasoning, "")


def test_an_answer_that_goes_on_from_its_reasoning_is_still_reasoning() -> None:
    begun = [USER, {"role": "assistant", "content": "<think>Hm"}]
    found = heard(parsing("none", "think", choice=None, messages=begun), [", so</think>Hi."])
    assert (found.reasoning, found.content) == (", so", "Hi.")
    begun[1] = {"role": "assistant", "content": "<think>Hm</think>H"}
    found = heard(parsing("none", "think", choice=None, messages=begun), ["i."])
    assert (found.reasoning, found.content) == ("", "i.")


def test_it_is_known_at_any_time_whether_the_model_is_thinking() -> None:
    parser = parsing("none", "think", choice=None).new("<think>\n")
    assert parser.in_reasoning
    parser.feed("Hm</thi")
    assert parser.in_reasoning
    parser.feed("nk>")
    assert not parser.in_reasoning
