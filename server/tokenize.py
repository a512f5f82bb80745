"""POST /tokenize and /detokenize."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sized
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.http import JSON, unless_gone
from server.protocol.request import TextPrompt, TokenPrompt
from server.protocol.tokenize import (
    parse_detokenize,
    parse_tokenize,
    render_spans,
    render_text,
    render_tokens,
)
from server.serving import Serving
from server.text.offload import is_long, offload_alone, parsed
from server.text_model import TextModel


class Tokenize:
    """The routes' handlers. The engine has no part in them, so short texts wait for nobody."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize. Raises InvalidRequestError."""
        return await self._answered(request, self._tokenized)

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize. Raises InvalidRequestError."""
        return await self._answered(request, self._detokenized)

    async def _answered(
        self, request: Request, answer: Callable[[Request, bytes], Coroutine[Any, Any, Response]]
    ) -> Response:
        body = await self._serving.accept(request, admit=False)
        if not is_long(body):
            return await answer(request, body)
        await self._serving.admit(request)
        return await unless_gone(request.receive, answer(request, body))

    async def _tokenized(self, request: Request, body: bytes) -> Response:
        wanted = await parsed(parse_tokenize, body)
        model = self._serving.find(request, wanted.model).model
        prompt, param = wanted.prompt, wanted.param
        if param == "inputs" and isinstance(prompt, TextPrompt):
            text, spans = prompt.text, await model.spans(prompt, param=param)
            return await _answer(model, text, lambda: render_spans(text, spans))
        ids = await model.prompt_ids(prompt, param=param)

        def render() -> bytes:
            strings = model.tokenizer.token_strings(ids) if wanted.token_strings else None
            return render_tokens(ids, model.served.max_seq_len, strings)

        return await _answer(model, ids, render)

    async def _detokenized(self, request: Request, body: bytes) -> Response:
        wanted = await parsed(parse_detokenize, body)
        model = self._serving.find(request, wanted.model).model
        ids = await model.prompt_ids(TokenPrompt(ids=wanted.tokens), param="tokens")
        skip = bool(wanted.skip_special_tokens)

        def render() -> bytes:
            return render_text(model.tokenizer.decode(ids, skip_special_tokens=skip))

        return await _answer(model, ids, render)


async def _answer(model: TextModel, told: Sized, render: Callable[[], bytes]) -> Response:
    """What `render` makes of what is `told`, beside the event loop where that is long."""
    short = len(told) <= model.tokenizer.offload_chars
    return Response(render() if short else await offload_alone(render), media_type=JSON)
