"""Promise: messages in OpenAI's form are read as meant, and others refused with what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from text.conversation import parse
from text.errors import MessagesError


def test_messages_keep_all_that_a_template_may_want() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "tool_call_id": "1", "content": "日本"},
    ]
    assert parse(json.dumps(messages)) == messages


def test_parts_of_text_are_lines() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert parse(json.dumps([{"role": "user", "content": parts}])) == [
        {"role": "user", "content": "a \nb"}
    ]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "at least one"),
        ('{"role": "user"}', "a list"),
        ('["hello"]', "message 0 has no role"),
        ('[{"role": "user", "content": "a"}, {"content": "b"}]', "message 1 has no role"),
        ('[{"role": 1, "content": "a"}]', "message 0 has no role"),
        ('[{"role": "user"}]', "message 0 has no content"),
        ('[{"role": "user", "content": 3}]', "message 0 has no content"),
        ('[{"role": "assistant", "content": null}]', "message 0 has no content"),
    ],
)
def test_what_is_no_conversation_is_refused_by_its_place(document: str, told: str) -> None:
    with pytest.raises(MessagesError, match=told):
        parse(document)


@pytest.mark.parametrize(
    "part", ["a", {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text"}]
)
def test_a_part_that_is_no_text_is_refused(part: Any) -> None:
    with pytest.raises(MessagesError, match="message 0 has a part that isn't text"):
        parse(json.dumps([{"role": "user", "content": [part]}]))
