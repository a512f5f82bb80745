"""Promise: a body with more values than are read in one go is refused, long texts are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import InvalidRequestError
from server.protocol.json_size import check_values
from server.protocol.openai_chat import parse

MOST = 50


@pytest.mark.parametrize(
    "value", [[0] * 60, {str(n): 1 for n in range(60)}, [[[]]] * 20, [""] * 60]
)
def test_values_are_counted_whatever_they_are(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="more than 50 values"):
        check_values(json.dumps(value).encode(), MOST)


@pytest.mark.parametrize(
    "text", ["a, [b] {c}" * 60, 'said "a, [b]" \\' * 60, "\\" * 61 + ',"' * 60]
)
def test_a_text_is_one_value(text: str) -> None:
    check_values(json.dumps({"a": [text, text]}).encode(), MOST)


def test_messages_have_bounded_numbers_of_parts_and_tools_of_schemas() -> None:
    parts = [{"type": "text", "text": "x"}] * 6000
    messages: list[Any] = [{"role": "user", "content": parts}] * 2
    with pytest.raises(InvalidRequestError, match="parts"):
        parse(json.dumps({"messages": messages}).encode())
    schema = {"properties": {str(number): {} for number in range(4500)}}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}} for name in "abcde"
    ]
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(InvalidRequestError, match="schemas in all") as caught:
        parse(json.dumps({"messages": messages, "tools": tools}).encode())
    assert caught.value.param == "tools"
