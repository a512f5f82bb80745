"""Promise: the document is OpenAPI, and says what the endpoint does: every route, every parameter
and its bounds, and the shapes of real answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import told
from live_proxy import MODEL

from server.app import rows
from server.edge.route import Row
from server.errors import InvalidRequestError
from server.openapi.bodies import BODIES
from server.openapi.bounds import BOUNDS
from server.openapi.document import document
from server.openapi.operations import OPERATIONS
from server.openapi.page import page
from server.protocol import openai_embeddings
from server.protocol.openai_chat import parse as parse_chat
from server.protocol.openai_completions.body import parse as parse_completion
from server.protocol.openai_errors import SHAPES
from server.protocol.parameters import Honoured, Refused
from server.protocol.responses.request import parse as parse_response
from server.protocol.tokenize import parse_tokenize
from server.serving import Serving

LOOK = {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}
TOOLS = {"tools": [{"type": "function", "function": LOOK}]}
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
GO_ON = {"model": MODEL, "prompt": "hello", "max_tokens": 40}
RESPOND = {"model": MODEL, "input": "hello"}
TELL_ALL = {"return_token_ids": True, "logprobs": True, "top_logprobs": 2, "n": 2}
USAGE = {"include_usage": True, "continuous_usage_stats": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return told.write(tmp_path_factory.mktemp("document"))


@pytest.fixture(scope="module")
def table(folder: Path) -> list[Row]:
    return rows(Serving(told.settings(folder), told.backend()))


@pytest.fixture(scope="module")
def content(table: list[Row]) -> dict[str, Any]:
    whole: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document(table)))
    return whole


def check(content: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": content["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from walk(inner)


def test_it_is_openapi_31_and_all_its_schemas_are_schemas(content: dict[str, Any]) -> None:
    definitions = pytest.importorskip("schemathesis.specs.openapi.definitions")
    definitions.OPENAPI_31_VALIDATOR.validate(content)
    for schema in content["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for schema in walk(content):
        if isinstance(schema.get("$ref"), str):
            found: Any = content
            for word in schema["$ref"].removeprefix("#/").split("/"):
                found = found[word]
    ids = [operation["operationId"] for _, _, operation in operations(content)]
    assert len(ids) == len(set(ids))


def operations(content: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in content["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_it_has_every_route_and_no_other_and_says_whom_each_is_for(
    table: list[Row], content: dict[str, Any]
) -> None:
    served = {(row.method, row.path.replace(":path}", "}")): row for row in table}
    shown = {(method.upper(), path): told for method, path, told in operations(content)}
    assert served.keys() == shown.keys() == OPERATIONS.keys()
    schemes = content["components"]["securitySchemes"].keys()
    for place, row in served.items():
        wants = [set(each) for each in shown[place]["security"]]
        assert all(each <= schemes for each in wants)
        assert (wants == []) == (row.group == "open")
        assert (set() in wants) == (row.group == "api"), "an admin's route is never open"
        assert ("401" in shown[place]["responses"]) == (row.group != "open")


@pytest.mark.parametrize("name", BODIES)
def test_every_parameter_is_in_it_with_what_becomes_of_it(
    content: dict[str, Any], name: str
) -> None:
    body, schema = BODIES[name], content["components"]["schemas"][name]
    assert schema["properties"].keys() == body.parameters.keys()
    assert schema["additionalProperties"] is False
    for parameter, fate in body.parameters.items():
        shown = schema["properties"][parameter]
        if isinstance(fate, Honoured):
            assert shown["x-fate"] == "honoured"
            assert parameter in body.struct.__struct_fields__  # type: ignore[attr-defined]
            assert shown.keys() & {"anyOf", "type", "$ref", "enum"}, "its type is told"
        elif isinstance(fate, Refused):
            assert shown["x-fate"] == "refused"
            assert fate.reason in shown["description"]
            for value in (None, *fate.neutral):
                check(content, shown, value)
            with pytest.raises(jsonschema.ValidationError):
                check(content, shown, "something")
        else:
            assert shown["x-fate"] == "metadata"
            check(content, shown, {"any": "thing"})


@pytest.mark.parametrize("nothing", [None, []])
def test_a_response_that_goes_on_from_another_may_be_asked_for_without_input(
    content: dict[str, Any], nothing: Any
) -> None:
    schema = content["components"]["schemas"]["ResponseRequest"]
    check(content, schema, {"previous_response_id": "resp_1", "input": nothing})


def test_errors_are_told_with_the_status_that_they_leave_with(content: dict[str, Any]) -> None:
    shown = {int(s) for _, _, told in operations(content) for s in told["responses"]}
    outside = {405}  # of no operation
    by_connection = {408, 431}
    assert shown == {shape.status for shape in SHAPES.values()} - outside | by_connection | {200}


BASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ChatRequest": (parse_chat, HELLO),
    "CompletionRequest": (parse_completion, {"prompt": "x"}),
    "ResponseRequest": (parse_response, {"input": "x"}),
    "EmbeddingRequest": (openai_embeddings.parse, {"input": "x"}),
    "TokenizeRequest": (parse_tokenize, {"messages": HELLO["messages"]}),
}
WITH: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "length_penalty": {"use_beam_search": True},
    "min_tokens": {"max_tokens": 2**31 - 1},
}
"""Parameters that another must be set for."""


@pytest.mark.parametrize("name", BASES)
def test_bounds_are_those_that_are_kept(content: dict[str, Any], name: str) -> None:
    parse, base = BASES[name]
    properties = content["components"]["schemas"][name]["properties"]
    bounds = {**BOUNDS, **BODIES[name].bounds}
    walked = 0
    for parameter in sorted(properties.keys() & bounds.keys()):
        for facets in (properties[parameter], *properties[parameter].get("anyOf", ())):
            more = {} if name == "ResponseRequest" else WITH.get(parameter, {})
            for word in facets.keys() & {"minimum", "maximum"}:
                parse(json.dumps({**base, **more, parameter: facets[word]}).encode())
            for value in beyond(facets):
                walked += 1
                with pytest.raises(InvalidRequestError) as caught:
                    parse(json.dumps({**base, **more, parameter: value}).encode())
                assert caught.value.param == parameter
    assert walked >= 1


def beyond(facets: dict[str, Any]) -> Iterator[Any]:
    """Values that the facets rule out, of each one."""
    for word, step in (("minimum", -1), ("maximum", 1)):
        if word in facets:
            yield facets[word] + step
    for word, value in (("minItems", []), ("minLength", "")):
        if word in facets:
            yield value
    if "not" in facets:
        yield facets["not"]["const"]


async def test_real_answers_have_the_shapes_that_are_told(
    folder: Path, content: dict[str, Any]
) -> None:
    asked = [
        ("/v1/chat/completions", HELLO),
        ("/v1/chat/completions", {**HELLO, **TELL_ALL, **TOOLS, "prompt_logprobs": 1}),
        ("/v1/chat/completions", {**HELLO, "functions": [LOOK], "service_tier": "auto"}),
        ("/v1/completions", {**GO_ON, "logprobs": 2, "echo": True, "return_token_ids": True}),
        ("/v1/completions", {**GO_ON, "prompt": ["a", "b"], "prompt_logprobs": 0}),
        ("/v1/responses", {**RESPOND, "tools": [{"type": "function", **LOOK}], "top_logprobs": 2}),
        ("/v1/responses", {**RESPOND, "max_output_tokens": 3, "metadata": {"a": "b"}}),
        ("/v1/responses/input_tokens", RESPOND),
        ("/v1/embeddings", {"model": told.ENCODER, "input": ["a", "b"]}),
        ("/v1/embeddings", {"input": "a", "encoding_format": "base64", "dimensions": 2}),
        ("/tokenize", {"prompt": "hello", "return_token_strs": True}),
        ("/tokenize", {"inputs": "hello"}),
        ("/v1/detokenize", {"tokens": [5, 6]}),
    ]
    async with told.proxy(folder) as proxy:
        for path, body in asked:
            answer = await proxy.http.post(path, json=body)
            assert answer.status_code == 200, answer.text
            media = content["paths"][path]["post"]["responses"]["200"]["content"]
            check(content, media["application/json"]["schema"], answer.json())
        kept = (await proxy.http.post("/v1/responses", json=RESPOND)).json()["id"]
        for path in ("/v1/responses/{id}", "/v1/responses/{id}/input_items"):
            answer = await proxy.http.get(path.replace("{id}", kept))
            media = content["paths"][path]["get"]["responses"]["200"]["content"]
            check(content, media["application/json"]["schema"], answer.json())


async def test_real_streams_have_events_of_the_shapes_that_are_told(
    folder: Path, content: dict[str, Any]
) -> None:
    tools = {"tools": [{"type": "function", **LOOK}]}
    asked = [
        ("/v1/chat/completions", {**HELLO, **TOOLS}),
        ("/v1/chat/completions", {**HELLO, **TOOLS, **TELL_ALL, "stream_options": USAGE}),
        ("/v1/chat/completions", {**HELLO, "functions": [LOOK], "service_tier": "auto"}),
        ("/v1/completions", GO_ON),
        ("/v1/completions", {**GO_ON, "logprobs": 1, "return_token_ids": True, "echo": True}),
        ("/v1/completions", {**GO_ON, "stream_options": USAGE}),
        ("/v1/responses", {**RESPOND, **tools}),
        ("/v1/responses", {**RESPOND, "top_logprobs": 1}),
        ("/v1/responses", {**RESPOND, "max_output_tokens": 3}),
    ]
    async with told.proxy(folder) as proxy:
        for path, body in asked:
            answer = await proxy.http.post(path, json={**body, "stream": True})
            events = re.findall(r"^data: (.*)$", answer.text, re.MULTILINE)
            media = content["paths"][path]["post"]["responses"]["200"]["content"]
            data = media["text/event-stream"]["schema"]["properties"]["data"]
            if "anyOf" in data:
                data, last = data["anyOf"]
                assert events.pop() == last["const"]
            assert len(events) > 3
            for event in map(json.loads, events):
                check(content, data["contentSchema"], event)


class Page(HTMLParser):
    """What a page refers to, and where it can be referred to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        self.places += [value or "" for name, value in attrs if name == "id"]


async def test_the_page_shows_it_all_and_needs_nothing_from_elsewhere(
    folder: Path, content: dict[str, Any]
) -> None:
    async with told.proxy(folder) as proxy:
        assert (await proxy.http.get("/openapi.json")).json() == content
        answer = await proxy.http.get("/docs")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    shown = Page(answer.text)
    assert not shown.tags & {"script", "link", "img", "iframe"}
    assert "url(" not in answer.text
    places = {f"#{place}" for place in shown.places}
    assert len(places) == len(shown.places)
    assert set(shown.links) <= places | {"openapi.json"}
    assert places >= {f"#{name}" for name in content["components"]["schemas"]}
    assert places >= {f"#{told['operationId']}" for _, _, told in operations(content)}
    assert all(f"<code>{path}</code>" in answer.text for path in content["paths"])


def test_the_page_shows_words_and_not_marks_that_they_hold(content: dict[str, Any]) -> None:
    evil = {**content, "info": {**content["info"], "title": "<script>alert(1)</script>"}}
    assert "script" not in Page(page(evil)).tags
