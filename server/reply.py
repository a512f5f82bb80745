"""One generation as an HTTP answer, streamed or whole, in any dialect."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.backend.base import Backend
from server.errors import InternalError, RequestError
from server.generation import Generation
from server.http import (
    JSON,
    ClientDisconnectedError,
    error_response,
    shutting_down,
    unless_disconnected,
)
from server.protocol import openai_chat, openai_completions, openai_errors, sse
from server.protocol.request import AnswerHead, TextEvent, TextRequest, TokenLogProb, Usage
from server.telemetry.metrics import CANCELLED, Metrics, RequestMeter
from server.text_model import TextModel

_log = logging.getLogger(__name__)

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Stream(Protocol):
    """A dialect's chunks of one streamed answer."""

    def start(self, index: int) -> bytes: ...

    def delta(self, new: TextEvent) -> bytes: ...

    def usage(self, usage: Usage) -> bytes: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """One way of asking: its pure functions, and the name that metrics call it by."""

    endpoint: str
    id_prefix: str
    parse: Callable[[bytes], TextRequest]
    stream: Callable[[AnswerHead, TextRequest], Stream]
    render: Callable[[AnswerHead, TextRequest, Sequence[TextEvent], Usage], bytes]


CHAT = Dialect(
    endpoint="chat_completions",
    id_prefix=openai_chat.ID_PREFIX,
    parse=openai_chat.parse,
    stream=openai_chat.ChatStream,
    render=openai_chat.render,
)
COMPLETIONS = Dialect(
    endpoint="completions",
    id_prefix=openai_completions.ID_PREFIX,
    parse=openai_completions.parse,
    stream=openai_completions.CompletionStream,
    render=openai_completions.render,
)


class Reply:
    """An ASGI response that generates while it answers, and stops when the client leaves."""

    def __init__(
        self,
        dialect: Dialect,
        request: TextRequest,
        *,
        model: TextModel,
        backend: Backend,
        metrics: Metrics,
    ) -> None:
        self._dialect, self._request = dialect, request
        self._model, self._backend, self._metrics = model, backend, metrics
        self._head = AnswerHead(
            id=f"{dialect.id_prefix}{uuid.uuid4().hex}",
            created=int(time.time()),
            model=model.served.name,
        )
        self._meter = RequestMeter(metrics, model=model.served.name, endpoint=dialect.endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        with self._meter as meter:
            meter.outcome = CANCELLED
            sender = _Sender(scope, receive, send)
            try:
                await unless_disconnected(receive, self._answer(sender))
            except ClientDisconnectedError:
                return
            except asyncio.CancelledError:  # the drain is over
                await sender.fail(shutting_down())
            meter.outcome = sender.outcome

    async def _answer(self, sender: _Sender) -> None:
        try:
            requests = await self._model.requests(self._request, self._head.id)
            generation = Generation(
                self._model, self._backend, self._request, requests, self._meter
            )
            answer = self._stream if self._request.stream else self._whole
            await answer(generation, sender)
        except RequestError as error:
            await sender.fail(error)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer
            _log.exception("a request failed")
            await sender.fail(InternalError("the proxy failed", do="see its log"))

    async def _stream(self, generation: Generation, sender: _Sender) -> None:
        stream = self._dialect.stream(self._head, self._request)
        head = b"".join(stream.start(index) for index in range(generation.choices))
        async with aclosing(generation.events()) as batches:
            async for events in batches:
                await sender.send(head + b"".join(map(stream.delta, events)))
                head = b""
        usage = stream.usage(generation.usage) if self._request.include_usage else b""
        await sender.end(usage + sse.DONE)

    async def _whole(self, generation: Generation, sender: _Sender) -> None:
        async with aclosing(generation.events()) as batches:
            choices = await _joined(batches, generation.choices)
        body = self._dialect.render(self._head, self._request, choices, generation.usage)
        await sender.whole(Response(body, media_type=JSON))


class _Sender:
    """Sends a response, and knows how much of it has left."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._started = self._ended = False
        self.outcome = "ok"

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """A piece of a stream; the status line goes before the first."""
        if not self._started:
            self._started = True
            start = {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS[:]}
            await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def end(self, body: bytes) -> None:
        """The stream's last piece."""
        self._ended = True
        await self.send(body, more=False)

    async def whole(self, response: Response) -> None:
        """A response that is not a stream."""
        self._started = self._ended = True
        await response(self._scope, self._receive, self._send)

    async def fail(self, error: RequestError) -> None:
        """The error as the response, or as an event when the status line has left already.

        Nothing after the last byte.
        """
        if self._ended:
            return
        self.outcome = str(openai_errors.shape(error).status)
        if self._started:
            await self.end(sse.error_event(error))
        else:
            await self.whole(error_response(error))


async def _joined(batches: AsyncIterator[list[TextEvent]], choices: int) -> list[TextEvent]:
    """Each choice's events as one."""
    texts: list[list[str]] = [[] for _ in range(choices)]
    log_probs: list[list[TokenLogProb]] = [[] for _ in range(choices)]
    last: dict[int, TextEvent] = {}
    async for events in batches:
        for event in events:
            texts[event.index].append(event.text)
            log_probs[event.index].extend(event.log_probs)
            last[event.index] = event
    return [
        replace(last[i], text="".join(texts[i]), log_probs=log_probs[i]) for i in range(choices)
    ]
