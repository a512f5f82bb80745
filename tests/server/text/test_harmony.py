"""Promise: an answer's channels are reasoning, content and calls, wherever the text is cut."""

from __future__ import annotations

import pytest
from split_answers import cut, heard, parsing

ASSISTANT = "<|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|>"
CALL = '{"city": "Rome"}'
TO = "to=functions.weather"
Calls = list[tuple[str, str]]
WEATHER: Calls = [("weather", CALL)]

ANSWERS: list[tuple[str, str, str, Calls]] = [
    (f"{THOUGHT}{ASSISTANT}<|channel|>final<|message|>Hi! <|return|>", "Hi!", "Hm.", []),
    (f"{THOUGHT}{ASSISTANT}{THOUGHT}", "", "Hm.\n\nHm.", []),
    (
        f"{THOUGHT}{ASSISTANT}<|channel|>commentary {TO} <|constrain|>json"
        f"<|message|>{CALL}<|call|>",
        "",
        "Hm.",
        WEATHER,
    ),
    (f" {TO}<|channel|>commentary json<|message|>{CALL}", "", "", WEATHER),
    (
        f"<|channel|>commentary<|message|>Plan.<|end|>{ASSISTANT} {TO}<|channel|>commentary"
        f"<|message|>{CALL}<|call|>",
        "Plan.",
        "",
        WEATHER,
    ),
    (
        f"<|channel|>commentary<|message|>Plan.<|end|>{ASSISTANT}<|channel|>final<|message|>Done.",
        "Plan.\n\nDone.",
        "",
        [],
    ),
    ("<|channel|>commentary to=now json<|message|><|call|>", "", "", [("now", "{}")]),
    ("<|channel|>analysis to=python code<|message|>1 + 1<|call|>", "", "1 + 1", []),
    (f"{THOUGHT}Hello", "Hello", "Hm.", []),
    ("Hello <|message|>", "Hello <|message|>", "", []),
    ("<|channel|>final<|mess", "", "", []),
    (f"{THOUGHT}{ASSISTANT}<|channel|>fin", "", "Hm.", []),
    ("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Hi", "Hi", "Hm.", []),
    ("<|channel|>final<|message|>Hi<|channel|>analysis<|message|>x", "Hi", "x", []),
    (f'<|channel|>commentary {TO}<|message|>"Rome"<|call|>', "", '"Rome"', []),
    (f"<|channel|>commentary {TO}<|message|> [1]<|call|>", "", "[1]", []),
    (f"<|channel|>commentary {TO}<|message|>{ASSISTANT}", "", "", [("weather", "{}")]),
]


@pytest.mark.parametrize(("text", "content", "reasoning", "calls"), ANSWERS)
@pytest.mark.parametrize("reasoning_parser", ["harmony", "none"])
def test_messages_are_told_apart_by_channel_and_recipient(
    text: str, content: str, reasoning: str, calls: Calls, reasoning_parser: str
) -> None:
    reason = "tool_calls" if calls else "stop"
    for pieces in ([len(text)], [1], [3, 2, 7]):
        found = heard(parsing("harmony", reasoning_parser), cut(text, pieces), tail=ASSISTANT)
        assert found.same() == (content, reasoning, calls, reason)


def test_without_functions_there_are_no_calls() -> None:
    text = f"<|channel|>commentary {TO}<|message|>{CALL}<|call|>"
    found = heard(parsing("none", "harmony", choice=None), cut(text, [3]))
    assert found.same() == ("", CALL, [], "stop")


def test_the_special_tokens_between_messages_reach_the_parser() -> None:
    shown = parsing("harmony", "harmony").markers
    assert {"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"} <= shown
