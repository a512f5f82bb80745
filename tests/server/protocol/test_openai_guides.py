"""What an answer is held to, by every name for it, and which documents are JSON schemas."""

from __future__ import annotations

import json
import re
import tracemalloc
from typing import Any

import jsonschema
import pytest

from server.backend.base import Guide
from server.errors import InvalidRequestError
from server.protocol import json_schema
from server.protocol.openai_chat import parse
from server.protocol.openai_completions import parse as parse_completion

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
NAMED = {"name": "thing", "schema": SCHEMA, "strict": True}
HELD = Guide(kind="json_schema", text=json.dumps(SCHEMA, separators=(",", ":")))

CASES: list[tuple[dict[str, Any], Guide | None]] = [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, Guide(kind="json")),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, HELD),
    ({"response_format": {"type": "json_schema", "json_schema": NAMED}}, HELD),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "any"}}},
        Guide(kind="json"),
    ),
    ({"response_format": {"type": "json", "schema": SCHEMA}}, HELD),
    ({"response_format": {"type": "regex", "regex": "a+"}}, Guide(kind="regex", text="a+")),
    (
        {"response_format": {"type": "ebnf", "ebnf": 'root ::= "a"'}},
        Guide(kind="ebnf_grammar", text='root ::= "a"'),
    ),
    (
        {"response_format": {"type": "grammar", "grammar": 'root ::= "a"'}},
        Guide(kind="ebnf_grammar", text='root ::= "a"'),
    ),
    ({"structured_outputs": {"json": SCHEMA}}, HELD),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, HELD),
    ({"structured_outputs": {"regex": "a+"}}, Guide(kind="regex", text="a+")),
    ({"structured_outputs": {"grammar": "x"}}, Guide(kind="ebnf_grammar", text="x")),
    ({"structured_outputs": {"json_object": True}}, Guide(kind="json")),
    ({"structured_outputs": {"json_object": False, "disable_fallback": False}}, None),
    ({"guided_json": SCHEMA}, HELD),
    ({"guided_regex": "a+"}, Guide(kind="regex", text="a+")),
    ({"guided_grammar": "x"}, Guide(kind="ebnf_grammar", text="x")),
]


def guide(**values: Any) -> Guide | None:
    messages = [{"role": "user", "content": "hi"}]
    return parse(json.dumps({"messages": messages, **values}).encode()).guide


@pytest.mark.parametrize(("values", "wanted"), CASES)
def test_every_name_for_a_form_becomes_the_engines_guide(
    values: dict[str, Any], wanted: Guide | None
) -> None:
    assert guide(**values) == wanted
    assert parse_completion(json.dumps({"prompt": "x", **values}).encode()).guide == wanted


@pytest.mark.parametrize("name", ["structured_outputs", "guided_choice"])
def test_a_choice_is_one_of_the_bare_texts_and_nothing_else(name: str) -> None:
    choices = ["yes", "no (never)", "1.5*x", "a|b", "[q]\\^$", "ä\n"]
    held = guide(**{name: {"choice": choices} if name == "structured_outputs" else choices})
    assert held is not None
    assert held.kind == "regex"
    pattern = re.compile(held.text)
    assert all(pattern.fullmatch(choice) for choice in choices)
    assert not any(pattern.fullmatch(text) for text in ("", "yesno", '"yes"', "1x5*x", "a", "b"))


def test_a_choice_is_read_by_the_cpu_engines_grammar_compiler_as_it_is_meant() -> None:
    llguidance = pytest.importorskip("llguidance")
    held = guide(guided_choice=["a|b", "1.5*x (never) [q]{2}\\^$"])
    assert held is not None
    grammar = llguidance.LLMatcher.grammar_from_regex(held.text)
    tokenizer = llguidance.LLTokenizer("byte")
    for text, fits in (
        (b"a|b", True),
        (b"1.5*x (never) [q]{2}\\^$", True),
        (b"a", False),
        (b"1x5*x (never) [q]{2}\\^$", False),
    ):
        matcher = llguidance.LLMatcher(tokenizer, grammar)
        assert (matcher.try_consume_tokens(list(text)) == len(text)) == (fits or text == b"a")
        assert matcher.is_accepting() == fits


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"response_format": {"type": "structural_tag", "format": {}}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "text", "regex": "a"}}, "response_format.regex"),
        ({"response_format": {"type": "regex"}}, "response_format.regex"),
        ({"response_format": {"type": "regex", "regex": ""}}, "response_format.regex"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "thing"}},
                }
            },
            "response_format.json_schema.schema.type",
        ),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[]"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"no_such": 1}}, "structured_outputs.no_such"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"guided_choice": [""]}, "guided_choice"),
    ],
)
def test_what_is_no_form_or_two_is_refused_by_name(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        guide(**values)
    assert caught.value.param == param


GOOD: list[Any] = [
    {},
    {"type": ["string", "null"], "minLength": 0, "pattern": "a"},
    {"enum": [1, None, {"a": []}], "const": {"type": "nonsense"}},
    {"properties": {"type": {"type": "string"}, "enum": True}, "required": ["type"]},
    {"items": {"anyOf": [{"type": "integer"}, False]}, "maxItems": 2.0},
    {"prefixItems": [{}, {}], "items": False, "uniqueItems": True},
    {"$defs": {"a/b": {"type": "null"}}, "$ref": "#/$defs/a~1b"},
    {"definitions": {"node": {"properties": {"next": {"$ref": "#/definitions/node"}}}}},
    {"x-made-up": 7, "not": {"multipleOf": 0.5}, "additionalProperties": {"type": "array"}},
]
BAD: list[Any] = [
    {"type": "text"},
    {"type": []},
    {"type": [1]},
    {"properties": []},
    {"properties": {"a": 7}},
    {"properties": {"a": {"items": "string"}}},
    {"required": "a"},
    {"minLength": -1},
    {"minLength": 1.5},
    {"maximum": "9"},
    {"multipleOf": 0},
    {"anyOf": {}},
    {"anyOf": []},
    {"allOf": [None]},
    {"not": 7},
    {"pattern": 7},
    {"enum": "a"},
    {"uniqueItems": 1},
    {"additionalProperties": "no"},
]


@pytest.mark.parametrize("schema", GOOD)
def test_a_json_schema_is_taken_as_it_is(schema: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json_schema.checked_text(schema, "p")) == schema


@pytest.mark.parametrize("schema", BAD)
def test_what_the_meta_schema_refuses_is_refused_by_its_place(schema: Any) -> None:
    with pytest.raises(jsonschema.SchemaError):
        jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(InvalidRequestError) as caught:
        json_schema.checked_text(schema, "p")
    assert (caught.value.param or "").startswith("p.")


@pytest.mark.parametrize("reference", ["http://x/y", "#/$defs/none", "#/enum/1", "other.json"])
def test_a_reference_that_leads_nowhere_is_refused(reference: str) -> None:
    with pytest.raises(InvalidRequestError, match="reference"):
        json_schema.checked_text({"enum": [1], "items": {"$ref": reference}}, "p")


def test_schemas_without_end_are_refused() -> None:
    deep: Any = {}
    for _ in range(80):
        deep = {"items": deep}
    constant: Any = 1
    for _ in range(2000):
        constant = [constant]
    wide: Any = {"properties": {str(number): {} for number in range(5001)}}
    many = {"enum": list(range(1001))}
    long = {"description": "x" * json_schema.MAX_SCHEMA_CHARS}
    for schema in (deep, wide, many, long, {"const": constant}):
        with pytest.raises(InvalidRequestError):
            json_schema.checked_text(schema, "p")


@pytest.mark.parametrize("target", [5, [], {"anyOf": 5}, {"enum": 5}, {"type": [{}]}, {"$ref": 7}])
def test_a_reference_must_lead_to_a_schema_wherever_that_stands(target: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"\$ref"):
        json_schema.checked_text({"$ref": "#/default", "default": target}, "p")
    chain: Any = {str(number): {"$ref": f"#/else where/{number + 1}"} for number in range(99)}
    schema = {"$ref": "#/else%20where/0", "else where": {**chain, "99": {"type": "object"}}}
    assert json.loads(json_schema.checked_text(schema, "p")) == schema


def test_long_names_are_not_written_out_for_each_schema_below_them() -> None:
    inner = {"properties": {str(number): {} for number in range(2000)}}
    schema = {"properties": {"n" * 100_000: inner}}
    tracemalloc.start()
    try:
        json_schema.checked_text(schema, "p")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5_000_000
