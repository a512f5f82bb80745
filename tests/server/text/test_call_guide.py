"""Promise: calls that are demanded are held to a schema that takes them and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest
from small_tokenizers import byte_level, write_folder
from split_answers import TOOLS, request

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.text.parser import guide_for

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
NODE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.com/node",
    "properties": {
        "value": {"$ref": "#/$defs/V"},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "$ref": {"type": "string"},
        "default": {"$ref": "#/$defs/V"},
        "as": {"const": {"$ref": "#/left/alone"}},
    },
    "$defs": {"V": {"type": "integer"}},
    "additionalProperties": False,
}
PLACE = {
    "type": "object",
    "properties": {"at": {"$ref": "#/definitions/V"}, "other": {"$ref": "#/properties/at"}},
    "required": ["at"],
    "definitions": {"V": POINT},
    "additionalProperties": False,
}


def tool(name: str, parameters: dict[str, Any] | None) -> dict[str, Any]:
    function = {"name": name} if parameters is None else {"name": name, "parameters": parameters}
    return {"type": "function", "function": function}


ALL = [tool("node", NODE), tool("place", PLACE), tool("ping", None)]


def schema(**asked: Any) -> Any:
    guide = guide_for(request(tools=ALL, **asked))
    assert guide is not None
    assert guide.kind == "json_schema"
    found = json.loads(guide.text)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def call(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": parameters}


GOOD = [
    [call("node", value=1, next={"value": 2, "next": None})],
    [call("node", **{"$ref": "a", "default": 1, "as": {"$ref": "#/left/alone"}})],
    [call("place", at={"x": 1}, other={"x": 2})],
    [call("ping"), call("ping", any=1)],
]
BAD = [
    [],
    [call("node", value="1")],
    [call("node", next={"value": "2"})],
    [call("node", default="1")],
    [call("node", more=1)],
    [call("place", at={"x": "1"})],
    [call("place", at={"x": 1}, other={})],
    [call("place")],
    [call("pong")],
    [{"name": "ping"}],
    [{"name": "ping", "parameters": 1}],
    [{"name": "ping", "parameters": {}, "more": 1}],
    call("ping"),
]


def test_required_takes_calls_of_any_tool_whose_arguments_fit() -> None:
    check = jsonschema.Draft202012Validator(schema(choice="required"))
    assert [calls for calls in GOOD if not check.is_valid(calls)] == []
    assert [calls for calls in BAD if check.is_valid(calls)] == []


def test_one_call_is_the_most_without_parallel_calls() -> None:
    check = jsonschema.Draft202012Validator(schema(choice="required", parallel=False))
    assert check.is_valid(GOOD[0])
    assert not check.is_valid(GOOD[3])


def test_a_named_tool_takes_its_arguments_alone() -> None:
    check = jsonschema.Draft202012Validator(schema(choice="named", named="place"))
    assert check.is_valid({"at": {"x": 1}})
    assert not check.is_valid([call("place", at={"x": 1})])
    anything = jsonschema.Draft202012Validator(schema(choice="named", named="ping"))
    assert anything.is_valid({"any": [1]})
    assert not anything.is_valid("text")


def test_nothing_is_demanded_unless_it_was_asked_for() -> None:
    assert guide_for(request(choice="auto")) is None
    assert guide_for(request(choice=None)) is None


def test_schemas_that_lead_elsewhere_and_unknown_functions_are_refused() -> None:
    outside = [tool("far", {"properties": {"a": {"$ref": "https://example.com/a.json"}}})]
    with pytest.raises(InvalidRequestError, match="'far' refers to another document") as caught:
        guide_for(request(choice="required", tools=outside))
    assert caught.value.param == "tools"
    with pytest.raises(InvalidRequestError) as caught:
        guide_for(request(choice="named", named="what", tools=TOOLS))
    assert caught.value.param == "tool_choice"


FORM = {
    "type": "object",
    "properties": {"answer": {"$ref": "#/$defs/Text"}},
    "required": ["answer"],
    "additionalProperties": False,
    "$defs": {"Text": {"type": "string"}},
}
NAMES = {"type": "array", "items": {"type": "string"}}
LIST_OR_OBJECT: list[tuple[Guide, list[Any], list[Any]]] = [
    (
        Guide(kind="json_schema", text=json.dumps(FORM)),
        [*GOOD, {"answer": "Rome"}],
        [*BAD, {"answer": 1}, {"tool_calls": GOOD[0]}, []],
    ),
    (
        Guide(kind="json_schema", text=json.dumps(NAMES)),
        [*({"tool_calls": calls} for calls in GOOD), ["Rome"], []],
        [*GOOD, *({"tool_calls": calls} for calls in BAD), [1]],
    ),
    (Guide(kind="json"), [*GOOD, {}, {"any": [1]}, {"name": "ping"}], [*BAD[:-4], [1], "text"]),
]
"""Forms beside which calls may be made, and what may then be answered and what not."""


@pytest.mark.parametrize(("form", "good", "bad"), LIST_OR_OBJECT)
def test_a_form_leaves_room_for_calls_of_which_arguments_fit(
    form: Guide, good: list[Any], bad: list[Any]
) -> None:
    check = jsonschema.Draft202012Validator(schema(guide=form))
    assert [answer for answer in good if not check.is_valid(answer)] == []
    assert [answer for answer in bad if check.is_valid(answer)] == []


def test_functions_may_be_called_like_the_choices_between_them() -> None:
    tools = [tool("auto", None), tool("required", POINT)]
    guide = guide_for(request(choice="named", named="required", tools=tools))
    assert guide
    assert json.loads(guide.text) == POINT
    assert guide_for(request(choice="auto", tools=tools)) is None


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Guide | None, Any], bool]:
    """Whether the engine's grammar compiler lets an answer be written to its end."""
    pytest.importorskip("llguidance")
    from triton_repo.executor.guide import Guides

    tokenizer = byte_level()
    size, end = tokenizer.get_vocab_size(), tokenizer.token_to_id("</s>")
    guides = Guides(write_folder(tmp_path_factory.mktemp("guides"), tokenizer), size, [end])

    def is_taken(guide: Guide | None, answer: Any) -> bool:
        assert guide
        place = guides.compile(guide.kind, guide.text)
        for token in [*tokenizer.encode(json.dumps(answer), add_special_tokens=False).ids, end]:
            logits = np.zeros(size, np.float32)
            place.mask(logits)
            if logits[token] != 0:
                return False
            place.accept(token)
        return True

    return is_taken


def test_the_engines_grammar_compiler_takes_the_schema_and_holds_answers_to_it(
    taken: Callable[[Guide | None, Any], bool],
) -> None:
    guide = guide_for(request(choice="required", tools=ALL))
    assert [calls for calls in GOOD if not taken(guide, calls)] == []
    assert [calls for calls in BAD if taken(guide, calls)] == []


@pytest.mark.parametrize(("form", "good", "bad"), LIST_OR_OBJECT)
def test_the_engines_grammar_compiler_takes_calls_and_form_alike(
    taken: Callable[[Guide | None, Any], bool], form: Guide, good: list[Any], bad: list[Any]
) -> None:
    guide = guide_for(request(tools=ALL, guide=form))
    assert [answer for answer in good if not taken(guide, answer)] == []
    assert [answer for answer in bad if taken(guide, answer)] == []
