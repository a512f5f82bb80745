"""One request's way through the proxy, as an ASGI response."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.edge.call import call_of
from server.errors import InternalError, RequestError
from server.generation import Generation
from server.http import JSON
from server.models import Found
from server.protocol.openai_errors import shape
from server.protocol.request import AnswerHead, TextEvent, TextRequest
from server.reply.dialect import Dialect
from server.reply.sender import Sender
from server.reply.watch import Watch
from server.serving import Serving
from server.telemetry.exchange import exchange_of
from server.telemetry.metrics import CANCELLED, OK, RequestMeter

_log = logging.getLogger(__name__)


class Reply:
    """Generates while it answers, and stops when the client leaves."""

    def __init__(
        self, dialect: Dialect, request: TextRequest, *, found: Found, serving: Serving
    ) -> None:
        self._dialect, self._request = dialect, request
        self._found, self._serving = found, serving
        self._head = AnswerHead(
            id=f"{dialect.id_prefix}{uuid.uuid4().hex}",
            created=int(time.time()),
            model=found.name,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        config, self._call = self._serving.config, call_of(scope)
        sender = Sender(scope, receive, send)
        watch = Watch(
            receive,
            sender,
            deadline=self._call.deadline,
            reader_seconds=config.reader_seconds,
            comment_seconds=config.comment_seconds,
        )
        self._meter = RequestMeter(
            self._serving.metrics,
            model=self._found.name,
            endpoint=self._dialect.endpoint,
            exchange=exchange_of(scope),
        )
        with self._meter, watch:
            self._meter.asked(self._request)
            self._meter.outcome = CANCELLED
            try:
                await self._answer(sender)
            except asyncio.CancelledError:
                await self._interrupted(sender, watch)

    async def _answer(self, sender: Sender) -> None:
        try:
            prepared = await self._found.model.requests(
                self._request,
                self._head.id,
                adapter_id=self._found.adapter_id,
                trace=self._meter.headers_for_triton(),
            )
            if self._meter.keeps_prompts:
                self._meter.prompts([one.request.input_ids for one in prepared])
            with Generation(
                self._found.model, self._serving.backend, self._request, prepared, self._meter
            ) as generation:
                try:
                    await self._generated(generation, sender)
                finally:
                    usage = generation.usage
                    self._call.spent_tokens += usage.prompt_tokens + usage.completion_tokens
            self._meter.outcome = OK
        except RequestError as error:
            await self._failed(sender, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            _log.exception("a request failed")
            await self._failed(sender, InternalError("the proxy failed", do="see its log"), error)

    async def _generated(self, generation: Generation, sender: Sender) -> None:
        if self._request.stream:
            await self._stream(generation, sender)
            return
        choices = await generation.whole()
        if self._meter.keeps_content:
            self._said(choices)
        body = self._dialect.render(self._head, self._request, choices, generation.usage)
        await sender.whole(Response(body, media_type=JSON))

    async def _stream(self, generation: Generation, sender: Sender) -> None:
        stream = sender.stream = self._dialect.stream(self._head, self._request)
        keeps_content, tells_usage = self._meter.keeps_content, self._request.continuous_usage
        sender.put(b"".join(stream.start(index) for index in range(generation.choices)))

        def show(events: list[TextEvent]) -> bool:
            if keeps_content:
                self._said(events)
            usage = generation.usage if tells_usage else None
            body = stream.delta(events[0], usage)
            for event in events[1:]:
                body += stream.delta(event, usage)
            if generation.running:
                return sender.put(body)
            return sender.put(body + stream.end(generation.usage), last=True)

        while generation.running:
            await generation.run(show)
            await sender.drain()

    def _said(self, events: Sequence[TextEvent]) -> None:
        for event in events:
            self._meter.said(event.index, event.text)

    async def _interrupted(self, sender: Sender, watch: Watch) -> None:
        """Say why, if there is anybody to listen; who reads nothing is cut off."""
        error = watch.error()
        if error is None:
            if watch.why == "stuck":
                await sender.abort()
            return
        watch.why = None
        try:
            await self._failed(sender, error)
        except asyncio.CancelledError:
            if watch.why is None:  # not by the watch: whoever cancels a second time means it
                raise
            await sender.abort()

    async def _failed(
        self, sender: Sender, error: RequestError, cause: BaseException | None = None
    ) -> None:
        self._meter.failed(cause or error, shape(error).status)
        await sender.fail(error)
