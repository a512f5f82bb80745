"""One answer of /v1/responses: its dialect, and its way into the store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from starlette.types import Message, Receive, Scope, Send

from server.protocol.request import AnswerHead, TextEvent, TextRequest, Usage
from server.protocol.responses.items import ID_PREFIX, with_ids
from server.protocol.responses.request import Asked
from server.protocol.responses.response import ResponseObject
from server.protocol.responses.stream import ResponseStream
from server.protocol.responses.whole import render
from server.reply import Dialect, Reply
from server.responses import item_json
from server.responses.conversation import Conversation
from server.responses.store import Kept, Store

ENDPOINT = "responses"


class Answer:
    """What becomes of one request: `final` is the response's JSON, as soon as it is known."""

    def __init__(self, asked: Asked, *, is_kept: bool) -> None:
        self._echo = {**asked.echo, "store": is_kept}
        self._stream: ResponseStream | None = None
        self._whole: bytes | None = None
        self.id = ""

    def dialect(self, request: TextRequest) -> Dialect:
        """How this one answer is told."""
        return Dialect(
            endpoint=ENDPOINT,
            id_prefix=ID_PREFIX,
            parse=lambda _: request,
            stream=self._new_stream,
            render=self._render,
        )

    @property
    def final(self) -> bytes | None:
        """The response as its client got it."""
        return self._stream.final if self._stream else self._whole

    def give_up(self) -> None:
        """The client has left: what it had got of a stream is a cancelled response."""
        if self._stream:
            self._stream.give_up()

    def _new_stream(self, head: AnswerHead, _: TextRequest) -> ResponseStream:
        self.id = head.id
        self._stream = ResponseStream(ResponseObject(head, self._echo))
        return self._stream

    def _render(
        self, head: AnswerHead, _: TextRequest, choices: Sequence[TextEvent], usage: Usage
    ) -> bytes:
        self.id = head.id
        self._whole = render(ResponseObject(head, self._echo), choices[0], usage)
        return self._whole


class KeptReply:
    """A reply that is kept before its last byte leaves: who has all of it can go on from it."""

    def __init__(
        self,
        reply: Reply,
        answer: Answer,
        *,
        store: Store,
        owner: str,
        conversation: Conversation,
    ) -> None:
        self._reply, self._answer = reply, answer
        self._store, self._owner, self._conversation = store, owner, conversation
        self._is_kept = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and keep the answer."""

        async def send_kept(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self._keep()
            await send(message)

        await self._reply(scope, receive, send_kept)
        self._answer.give_up()
        await self._keep()

    async def _keep(self) -> None:
        final = self._answer.final
        if final is None or self._is_kept:
            return
        self._is_kept = True
        size_bytes = len(final) + self._conversation.size_bytes
        await self._store.put(partial(self._kept, final), size_bytes)

    def _kept(self, final: bytes) -> Kept:
        answer_id = self._answer.id
        items = item_json.written(with_ids(self._conversation.items, answer_id))
        return Kept(id=answer_id, owner=self._owner, response=final, items=items)
