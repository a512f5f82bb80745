"""The OpenAPI document: every route of the table, with what it takes, gives and refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from server.edge.application import TIMEOUT_PATTERN
from server.edge.route import Group, Row
from server.openapi.bodies import BODIES
from server.openapi.errors import EVERY, OF_KEYS, answers
from server.openapi.operations import JSON, OPERATIONS, TAGS, Operation
from server.openapi.schemas import Schema, Schemas
from server.version import own_version

EVENTS: Final = "text/event-stream"

_SUMMARY: Final = "Language models behind OpenAI's interface"
_DESCRIPTION: Final = (
    "Every parameter is honoured, is metadata that changes no answer, or is refused unless its"
    " value asks for nothing: see 'x-fate'. Parameters that are not here are refused. A key is"
    " wanted where the endpoint has keys at all."
)
_SECURITY: Final[dict[Group, list[Schema]]] = {
    "open": [],
    "api": [{}, {"bearer": []}, {"apiKey": []}],
    "admin": [{"bearer": []}, {"apiKey": []}],
}
_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_LIMITS: Final = {
    f"X-RateLimit-{what}-{kind}": {"schema": {"type": "string"}}
    for kind in ("Requests", "Tokens")
    for what in ("Limit", "Remaining", "Reset")
}
_HEADERS: Final[Schema] = {
    "X-Request-Id": {"schema": {"type": "string"}},
    "OpenAI-Processing-Ms": {"schema": {"type": "integer"}},
}
_REQUEST_HEADERS: Final[Sequence[Schema]] = (
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Told again with the answer, and in logs and traces.",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "In how many seconds the answer must have ended.",
        "schema": {"type": "string", "pattern": TIMEOUT_PATTERN},
    },
)
_PARAMETER: Final = re.compile(r"\{(\w+)(?::path)?\}")
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")


def document(table: Iterable[Row]) -> Schema:
    """The document of these routes. Raises KeyError for one that OPERATIONS doesn't know."""
    schemas = Schemas()
    paths: dict[str, Schema] = {}
    for row in table:
        path = _PARAMETER.sub(r"{\1}", row.path)
        operation = OPERATIONS[row.method, path]
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, path, operation, schemas)
    bodies = {name: body.schema(schemas) for name, body in BODIES.items()}
    parameters = {_name(parameter): parameter for parameter in _REQUEST_HEADERS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trtbuild",
            "version": own_version(),
            "summary": _SUMMARY,
            "description": _DESCRIPTION,
        },
        "tags": [{"name": tag, "description": text} for tag, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted({**schemas.components, **bodies}.items())),
            "parameters": parameters,
            "headers": {**_HEADERS, **_LIMITS},
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(row: Row, path: str, operation: Operation, schemas: Schemas) -> Schema:
    errors = EVERY | operation.errors | (OF_KEYS if row.group != "open" else frozenset())
    words = {"description": operation.description} if operation.description else {}
    body = {"requestBody": _body(operation.body)} if operation.body else {}
    return {
        "operationId": _operation_id(row.method, path),
        "summary": operation.summary,
        **words,
        "tags": [operation.tag],
        "security": _SECURITY[row.group],
        "parameters": _parameters(path, operation),
        **body,
        "responses": {
            **({"200": _answer(row, operation, schemas)} if operation.succeeds else {}),
            **answers(errors, schemas),
        },
    }


def _body(name: str) -> Schema:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"required": True, "content": {JSON: {"schema": schema}}}


def _answer(row: Row, operation: Operation, schemas: Schemas) -> Schema:
    names = [*_HEADERS, *(_LIMITS if row.group == "api" else ())]
    answer: Schema = {
        "description": "OK",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if operation.answer is not None:
        answer["content"] = {operation.media: {"schema": schemas.ref(operation.answer)}}
    if operation.links:
        answer["links"] = {
            _operation_id(method, path): {
                "operationId": _operation_id(method, path),
                "parameters": {"path.id": f"$response.body#{place}"},
            }
            for (method, path), place in operation.links.items()
        }
    if operation.stream:
        answer["content"][EVENTS] = {"schema": _event(operation, schemas)}
    return answer


def _event(operation: Operation, schemas: Schemas) -> Schema:
    """Each event of a stream, which in OpenAPI 3.1 is what the stream's schema is of."""
    kinds = [schemas.ref(kind) for kind in operation.stream]
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": kinds}}
    return {
        "description": "One event, with 'stream'.",
        "type": "object",
        "properties": {
            "event": {"type": "string"},
            "data": {"anyOf": [data, {"const": operation.last}]} if operation.last else data,
        },
        "required": ["data"],
    }


def _parameters(path: str, operation: Operation) -> list[Schema]:
    within = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    query = [
        {"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()
    ]
    headers = [{"$ref": f"#/components/parameters/{_name(each)}"} for each in _REQUEST_HEADERS]
    return [*within, *query, *headers]


def _operation_id(method: str, path: str) -> str:
    return _NO_NAME.sub("_", f"{method} {path}".lower()).strip("_")


def _name(parameter: Schema) -> Any:
    return parameter["name"]
