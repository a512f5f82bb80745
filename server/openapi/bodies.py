"""The schemas of requests: of the structs that read them, and of the tables of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from server.openapi.bounds import BOUNDS, Facets
from server.openapi.schemas import Schema, Schemas
from server.protocol.openai_chat import ChatRequest
from server.protocol.openai_completions.body import CompletionRequest
from server.protocol.openai_embeddings import EMBEDDINGS, EmbeddingBody
from server.protocol.openai_shared import MAX_TOOLS
from server.protocol.parameters import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    TOKENIZE,
    Fate,
    Metadata,
    Refused,
    TemplateVariable,
)
from server.protocol.responses.body import ResponsesRequest
from server.protocol.responses.input import ITEMS
from server.protocol.responses.parameters import RESPONSES
from server.protocol.tokenize import DetokenizeBody, TokenizeBody

FATE: Final = "x-fate"
"""Where a parameter's schema says what becomes of it."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A request's body: the struct that it is read into, and every parameter's fate.

    `bounds` are the dialect's own, beside BOUNDS; `items` are the types of a parameter's entries
    where the struct leaves them open.
    """

    struct: type
    parameters: Mapping[str, Fate]
    bounds: Mapping[str, Facets] = field(default_factory=dict)
    items: Mapping[str, tuple[type, ...]] = field(default_factory=dict)

    def schema(self, schemas: Schemas) -> Schema:
        """An object that has these parameters and no others."""
        read: Schema = schemas.inline(self.struct)
        properties = {
            name: self._property(name, fate, read["properties"], schemas)
            for name, fate in self.parameters.items()
        }
        return {
            "type": "object",
            "properties": properties,
            "required": read.get("required", []),
            "additionalProperties": False,
        }

    def _property(
        self, name: str, fate: Fate, read: Mapping[str, Schema], schemas: Schemas
    ) -> Schema:
        if isinstance(fate, Refused):
            return _refused(fate)
        if isinstance(fate, Metadata):
            return {FATE: "metadata", "description": "Accepted; it changes no answer."}
        schema = _bounded(read[name], {**BOUNDS, **self.bounds}.get(name, {}))
        if name in self.items:
            schema = _of(schema, [schemas.ref(item) for item in self.items[name]])
        if isinstance(fate, TemplateVariable):
            what = "Told to the model's chat template; refused where that doesn't mention it."
            schema = {**schema, "description": what}
        return {FATE: "honoured", **schema}


_TOOLS: Final = {"minItems": 1, "maxItems": MAX_TOOLS}

BODIES: Final[Mapping[str, Body]] = {
    "ChatRequest": Body(
        struct=ChatRequest, parameters=CHAT, bounds={"max_tokens": {"minimum": 1}, "tools": _TOOLS}
    ),
    "CompletionRequest": Body(
        struct=CompletionRequest, parameters=COMPLETIONS, bounds={"max_tokens": {"minimum": 0}}
    ),
    "EmbeddingRequest": Body(
        struct=EmbeddingBody,
        parameters=EMBEDDINGS,
        bounds={
            "input": {"minItems": 1, "minLength": 1},
            "truncate_prompt_tokens": {"minimum": -1, "not": {"const": 0}},
        },
    ),
    "ResponseRequest": Body(
        struct=ResponsesRequest,
        parameters=RESPONSES,
        bounds={"input": {}},
        items={"input": ITEMS},
    ),
    "TokenizeRequest": Body(struct=TokenizeBody, parameters=TOKENIZE, bounds={"tools": _TOOLS}),
    "DetokenizeRequest": Body(struct=DetokenizeBody, parameters=DETOKENIZE),
}
"""By the names that the document has for them."""


def _refused(fate: Refused) -> Schema:
    """What asks for nothing; JSON knows no difference between 0 and 0.0."""
    neutral: list[Any] = [None]
    for value in fate.neutral:
        if not any(value == known and type(value) in (type(known), float) for known in neutral):
            neutral.append(value)
    return {FATE: "refused", "enum": neutral, "description": f"Refused: {fate.reason}."}


def _bounded(schema: Schema, facets: Facets) -> Schema:
    """The schema with its type's facets, in each alternative that has such a type."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_bounded(one, facets) for one in schema["anyOf"]]}
    fitting = {
        name: value for name, value in facets.items() if schema.get("type") in _TYPES_OF[name]
    }
    return {**schema, **fitting}


def _of(schema: Schema, items: list[Schema]) -> Schema:
    """The schema with arrays of these."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_of(one, items) for one in schema["anyOf"]]}
    return {**schema, "items": {"anyOf": items}} if schema.get("type") == "array" else schema


_NUMBERS = ("integer", "number")
_TYPES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "minimum": _NUMBERS,
    "maximum": _NUMBERS,
    "not": _NUMBERS,
    "minItems": ("array",),
    "maxItems": ("array",),
    "minLength": ("string",),
    "maxLength": ("string",),
    "maxProperties": ("object",),
    "propertyNames": ("object",),
}
"""What each facet can be said of."""
