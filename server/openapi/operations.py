"""What each route takes and gives: one row a route, which the route table doesn't say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from server.openapi.answers.chat import ChatCompletion, ChatCompletionChunk
from server.openapi.answers.completions import (
    Completion,
    CompletionChunk,
    EmbeddingList,
    TokenIds,
    TokenSpan,
    TokensText,
)
from server.openapi.answers.response_events import EVENTS
from server.openapi.answers.responses import DeletedResponse, InputTokens, ItemList, Response
from server.openapi.answers.shared import (
    ErrorAnswer,
    Load,
    ModelEntry,
    ModelList,
    ReloadedKeys,
    Version,
)
from server.openapi.errors import OF_BODIES, OF_ENGINES, OF_KEPT, OF_MODELS, Errors
from server.protocol.responses.parameters import INCLUDE

JSON: Final = "application/json"
TEXT: Final = "text/plain"
HTML: Final = "text/html"
_DONE: Final = "[DONE]"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route. `body` is a name of BODIES; `stream` are the events of a streamed answer, and
    `last` what comes after them in the place of JSON.

    `answer` None has no content, of whatever `media`; where it `succeeds` never, there is none.
    `query` are parameters with their schemas. `links` are routes that the answer's `id`, at that
    place in it, is for. `errors` are beside those that any request may come to.
    """

    summary: str
    tag: str
    description: str = ""
    body: str | None = None
    answer: Any = None
    media: str = JSON
    succeeds: bool = True
    stream: tuple[type, ...] = ()
    last: str = ""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    links: Mapping[tuple[str, str], str] = field(default_factory=dict)
    errors: Errors = frozenset()


_COMPLETIONS, _RESPONSES, _MODELS = "Completions", "Responses", "Models"
_TOKENS, _STATUS, _ADMIN = "Tokens", "Status", "Admin"

TAGS: Final[Mapping[str, str]] = {
    _COMPLETIONS: "Answers and embeddings.",
    _RESPONSES: "Answers that can be kept, and gone on from.",
    _MODELS: "What can be asked.",
    _TOKENS: "Texts as the model's tokens, and back. The engine has no part in it.",
    _STATUS: "How the endpoint is.",
    _ADMIN: "For an admin's key.",
}

_GENERATES: Final = OF_BODIES | OF_MODELS | OF_ENGINES
_TOKENIZES: Final = OF_BODIES | OF_MODELS
_KEPT: Final = OF_KEPT
_INCLUDE: Final = {"type": "array", "items": {"enum": sorted(INCLUDE)}}
_HEALTH: Final = Operation(
    summary="Whether a request that is sent now would be served",
    tag=_STATUS,
    query={"model": {"type": "string", "description": "Of this model; else of any."}},
    errors=OF_MODELS,
)
_ALIVE: Final = Operation(summary="Whether there is anybody to answer", tag=_STATUS)
_VERSION: Final = Operation(
    summary="Who answers, and in which version", tag=_STATUS, answer=Version
)
_TOKENIZE: Final = Operation(
    summary="A prompt's tokens",
    tag=_TOKENS,
    description="By 'inputs', which is TGI's, with each token's place in the text.",
    body="TokenizeRequest",
    answer=TokenIds | list[TokenSpan],
    errors=_TOKENIZES,
)
_DETOKENIZE: Final = Operation(
    summary="What tokens say",
    tag=_TOKENS,
    body="DetokenizeRequest",
    answer=TokensText,
    errors=_TOKENIZES,
)

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/v1/chat/completions"): Operation(
        summary="An answer to a conversation",
        tag=_COMPLETIONS,
        body="ChatRequest",
        answer=ChatCompletion,
        stream=(ChatCompletionChunk, ErrorAnswer),
        last=_DONE,
        errors=_GENERATES,
    ),
    ("POST", "/v1/completions"): Operation(
        summary="How a text goes on",
        tag=_COMPLETIONS,
        body="CompletionRequest",
        answer=Completion,
        stream=(CompletionChunk, ErrorAnswer),
        last=_DONE,
        errors=_GENERATES,
    ),
    ("POST", "/v1/embeddings"): Operation(
        summary="Texts as vectors",
        tag=_COMPLETIONS,
        body="EmbeddingRequest",
        answer=EmbeddingList,
        errors=_GENERATES,
    ),
    ("POST", "/v1/responses"): Operation(
        summary="An answer that can be kept",
        tag=_RESPONSES,
        body="ResponseRequest",
        answer=Response,
        stream=EVENTS,
        links={
            ("GET", "/v1/responses/{id}"): "/id",
            ("GET", "/v1/responses/{id}/input_items"): "/id",
            ("POST", "/v1/responses/{id}/cancel"): "/id",
            ("DELETE", "/v1/responses/{id}"): "/id",
        },
        errors=_GENERATES | OF_KEPT,
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        summary="How many tokens a request would have the model read",
        tag=_RESPONSES,
        body="ResponseRequest",
        answer=InputTokens,
        errors=_TOKENIZES | OF_KEPT,
    ),
    ("GET", "/v1/responses/{id}"): Operation(
        summary="A kept answer",
        tag=_RESPONSES,
        answer=Response,
        query={
            "include": _INCLUDE,
            "stream": {"const": "false"},
            "starting_after": {"const": ""},
            "include_obfuscation": {"const": "false"},
        },
        errors=_KEPT,
    ),
    ("DELETE", "/v1/responses/{id}"): Operation(
        summary="Forget a kept answer", tag=_RESPONSES, answer=DeletedResponse, errors=_KEPT
    ),
    ("GET", "/v1/responses/{id}/input_items"): Operation(
        summary="The conversation that a kept answer is to",
        tag=_RESPONSES,
        answer=ItemList,
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            "order": {"enum": ["asc", "desc"], "default": "desc"},
            "after": {"type": "string", "description": "The id of the item before the first."},
            "include": _INCLUDE,
        },
        errors=_KEPT,
    ),
    ("POST", "/v1/responses/{id}/cancel"): Operation(
        summary="Refused: no answer is written in the background",
        tag=_RESPONSES,
        succeeds=False,
        errors=_KEPT,
    ),
    ("GET", "/v1/models"): Operation(
        summary="What can be asked: models, their aliases and adapters",
        tag=_MODELS,
        answer=ModelList,
        links={("GET", "/v1/models/{id}"): "/data/0/id"},
    ),
    ("GET", "/v1/models/{id}"): Operation(
        summary="One of them", tag=_MODELS, answer=ModelEntry, errors=OF_MODELS
    ),
    **{("POST", path): _TOKENIZE for path in ("/v1/tokenize", "/tokenize")},
    **{("POST", path): _DETOKENIZE for path in ("/v1/detokenize", "/detokenize")},
    **{
        ("GET", path): _HEALTH for path in ("/health", "/health/ready", "/v2/health/ready", "/ping")
    },
    ("POST", "/ping"): _HEALTH,
    **{("GET", path): _ALIVE for path in ("/health/live", "/v2/health/live")},
    **{("GET", path): _VERSION for path in ("/", "/version")},
    ("GET", "/metrics"): Operation(
        summary="Prometheus's text format", tag=_STATUS, media=TEXT, answer=str
    ),
    ("GET", "/load"): Operation(
        summary="How many requests this worker has", tag=_STATUS, answer=Load
    ),
    ("POST", "/admin/reload-keys"): Operation(
        summary="Read the file of API keys again", tag=_ADMIN, answer=ReloadedKeys
    ),
    ("GET", "/openapi.json"): Operation(
        summary="This document", tag=_STATUS, answer=dict[str, Any]
    ),
    ("GET", "/docs"): Operation(
        summary="This document as a page", tag=_STATUS, media=HTML, answer=str
    ),
}
"""By method and path."""
