"""The routes of /v1/responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from server.edge.call import call_of
from server.errors import InvalidRequestError, NotKeptError
from server.http import JSON, json_response
from server.protocol.responses.listing import page_json, read_page, read_retrieval
from server.protocol.responses.request import PROMPT_PARAM, Asked, parse
from server.reply import Reply
from server.responses import item_json
from server.responses.answer import Answer, KeptReply
from server.responses.context import Context, text_request
from server.responses.store import Kept, store_for
from server.serving import Serving
from server.text.offload import parsed

T = TypeVar("T")


class Responses:
    """Handlers. `close` ends the store. Raises UnusableStoreError."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._store = store_for(serving.config)
        self._context = Context(self._store, max_bytes=serving.config.max_body_bytes)

    async def create(self, request: Request) -> Reply | KeptReply:
        """POST /v1/responses."""
        body = await self._serving.accept(request)
        asked = await parsed(parse, body)
        found = self._serving.find(request, asked.model)
        owner = _owner(request)
        whole = await self._context.conversation(asked, owner, len(body))
        wanted, conversation = await self._context.fitting(asked, whole, found.model)
        is_kept = self._is_kept(asked)
        answer = Answer(asked, is_kept=is_kept)
        dialect = answer.dialect(wanted)
        reply = Reply(dialect, wanted, found=found, serving=self._serving)
        if self._store is None or not is_kept:
            return reply
        return KeptReply(reply, answer, store=self._store, owner=owner, conversation=conversation)

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/responses/{id}."""
        read_retrieval(request.query_params.multi_items())
        content = await self._read(request, lambda kept: kept.response)
        return Response(content, media_type=JSON)

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/responses/{id}."""
        response_id = request.path_params["id"]
        if self._store is None or not await self._store.delete(_owner(request), response_id):
            raise _unknown(response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Response:
        """GET /v1/responses/{id}/input_items: of the whole conversation that was answered."""
        page = read_page(request.query_params.multi_items())
        listed = await self._read(request, lambda kept: page_json(item_json.read(kept.items), page))
        return json_response(listed)

    async def cancel(self, request: Request) -> Response:
        """POST /v1/responses/{id}/cancel."""
        await self._read(request, lambda kept: kept.id)
        raise InvalidRequestError(
            "Only a response in the background can be cancelled, and this one isn't",
            do="end the connection that a response comes by, to cancel it",
        )

    async def count(self, request: Request) -> Response:
        """POST /v1/responses/input_tokens: how long the prompt of such a request is."""
        body = await self._serving.accept(request, admit=False)
        asked = await parsed(parse, body)
        found = self._serving.find(request, asked.model)
        conversation = await self._context.conversation(asked, _owner(request), len(body))
        made = await text_request(asked, conversation.items)
        (prompt,) = made.prompts
        ids = await found.model.prompt_ids(prompt, param=PROMPT_PARAM, request=made)
        return json_response({"object": "response.input_tokens", "input_tokens": len(ids)})

    async def close(self) -> None:
        """Let the store go."""
        if self._store is not None:
            await self._store.close()

    def _is_kept(self, asked: Asked) -> bool:
        if asked.store and self._store is None:
            raise InvalidRequestError(
                "'store' can't be honoured: there is no folder that the workers share",
                param="store",
                do="start the server with a folder for responses",
            )
        return self._store is not None and asked.store is not False

    async def _read(self, request: Request, of: Callable[[Kept], T]) -> T:
        """What `of` makes of the request's response. Raises NotKeptError."""
        response_id = request.path_params["id"]
        found = await self._store.read(_owner(request), response_id, of) if self._store else None
        if found is None:
            raise _unknown(response_id)
        return found


def _owner(request: Request) -> str:
    """Whose responses they are: the key's name; without keys all are everybody's."""
    key = call_of(request.scope).key
    return "" if key is None else key.name


def _unknown(response_id: str) -> NotKeptError:
    return NotKeptError(f"Response with id '{response_id[:100]}' not found.")
