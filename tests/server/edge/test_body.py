"""Promise: a body's depth is known before it is parsed, whatever its strings hold."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from server.edge.body import check_nesting, depth_of
from server.errors import InvalidRequestError

STRINGS = ("", "plain", "[", "]]", '"', "\\", '\\"', "{[\\", '"]}"', "ä\u0000[")


def test_the_depth_of_json_is_that_of_its_values() -> None:
    made = random.Random(7)
    for _ in range(300):
        depth = made.randrange(1, 9)
        value = nested(made, depth)
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
            assert depth_of(text.encode()) == depth


def test_a_depth_in_many_pieces_is_carried_from_one_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = {"a": [["]", {"b[": ['"', "\\"]}] * 5] * 5}
    body = json.dumps(value).encode()
    for piece_bytes in (1, 2, 7):
        monkeypatch.setattr("server.edge.body._PIECE_BYTES", piece_bytes)
        assert depth_of(body) == 5


@pytest.mark.parametrize(
    "body", [b"[" * 10_000, b'{"a":' * 99 + b"1" + b"}" * 99, b"[]" * 70 + b"[" * 65]
)
async def test_what_is_too_deep_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="more than 64 deep"):
        await check_nesting(body, 64)


async def test_what_is_wide_and_full_of_brackets_is_not() -> None:
    await check_nesting(json.dumps([["[[[["] * 10] * 1000).encode(), 64)


def nested(made: random.Random, depth: int) -> Any:
    """A value whose deepest lists and objects lie `depth` deep."""
    if depth == 0:
        return made.choice(STRINGS)
    inner = [nested(made, depth - 1), made.choice(STRINGS), nested(made, made.randrange(depth))]
    made.shuffle(inner)
    if made.random() < 0.5:
        return inner
    return {made.choice(STRINGS) + str(place): value for place, value in enumerate(inner)}
