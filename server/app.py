"""The proxy's route table: what there is, and who answers it."""

from __future__ import annotations

from server.backend.base import Backend
from server.completions import Completions
from server.config import ServerConfig
from server.edge.application import Application
from server.edge.route import Handler, Row
from server.embeddings import Embeddings
from server.listing import Listing
from server.openapi import OpenApi
from server.responses import Responses
from server.serving import Serving
from server.status import Status
from server.tokenize import Tokenize


def create_app(config: ServerConfig, backend: Backend) -> Application:
    """The proxy over `backend`, which it closes at its shutdown.

    Raises UnusableTokenizerError when a model's tokenizer folder can't be used, BadKeysError for
    the file of keys.
    """
    serving = Serving(config, backend)
    return Application(serving, rows(serving))


def rows(serving: Serving) -> list[Row]:
    """The table; the routes that are asked most come first."""
    completions, embeddings = Completions(serving), Embeddings(serving)
    responses, tokenize = Responses(serving), Tokenize(serving)
    serving.at_close(responses.close)
    answer = "/v1/responses/{id}"
    table = [
        _post("/v1/chat/completions", completions.chat, "chat_completions"),
        _post("/v1/completions", completions.text, "completions"),
        _post("/v1/embeddings", embeddings.create, "embeddings"),
        _post("/v1/responses", responses.create, "responses"),
        _post("/v1/responses/input_tokens", responses.count),
        _get(answer, responses.retrieve),
        Row(method="DELETE", path=answer, handler=responses.delete),
        _get(f"{answer}/input_items", responses.input_items),
        _post(f"{answer}/cancel", responses.cancel),
        *(_post(f"{root}/tokenize", tokenize.tokenize) for root in ("/v1", "")),
        *(_post(f"{root}/detokenize", tokenize.detokenize) for root in ("/v1", "")),
        *Listing(serving).rows(),
        *Status(serving).rows(),
    ]
    return [*table, *OpenApi(table).rows()]


def _get(path: str, handler: Handler) -> Row:
    return Row(method="GET", path=path, handler=handler)


def _post(path: str, handler: Handler, endpoint: str = "") -> Row:
    return Row(method="POST", path=path, handler=handler, endpoint=endpoint)
