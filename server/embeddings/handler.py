"""The route's handler: a request's inputs go to Triton one by one, some at a time.

There they share calls of the graph with each other, and with other clients'.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.config import ServedEmbedding, ServedModel
from server.edge.call import call_of
from server.embeddings.texts import EncoderText
from server.errors import DeadlineError, InternalError, InvalidRequestError, RequestError
from server.http import JSON, unless_gone
from server.models import Found
from server.protocol import openai_errors
from server.protocol.openai_embeddings import EmbeddingRequest, entry, parse, render
from server.serving import Serving
from server.telemetry.exchange import exchange_of
from server.telemetry.metrics import RequestMeter
from server.text.offload import parsed

ENDPOINT: Final = "embeddings"
_AT_ONCE: Final = 64
"""Inputs of one request that are with Triton: a whole batch, and no more than others get."""


class Embeddings:
    """The route's handler."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._default = next((f.name for f in serving.models if f.served.task == "embed"), None)

    async def create(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        asked = await parsed(parse, await self._serving.accept(request))
        found = self._serving.find(request, asked.model or self._default, "embed")
        _check(asked, found.served, self._serving.config.max_inputs)
        meter = RequestMeter(
            self._serving.metrics,
            model=found.name,
            endpoint=ENDPOINT,
            exchange=exchange_of(request.scope),
        )
        with meter:
            try:
                work = self._answer(asked, found, request, meter)
                return await unless_gone(request.receive, work)
            except ClientDisconnect:
                raise
            except Exception as error:
                told = error if isinstance(error, RequestError) else InternalError("")
                meter.failed(error, openai_errors.shape(told).status)
                raise

    async def _answer(
        self, asked: EmbeddingRequest, found: Found, request: Request, meter: RequestMeter
    ) -> Response:
        call = call_of(request.scope)
        texts = await EncoderText(found.model).ids(asked)
        tokens = sum(map(len, texts))
        call.spent_tokens += tokens
        meter.prompt(tokens)
        if meter.keeps_prompts:
            meter.prompts(texts)
        left = None
        if call.deadline is not None:
            left = max(0.0, call.deadline - asyncio.get_running_loop().time())
        try:
            work = self._entries(asked, found.served, texts, meter.headers_for_triton())
            entries = await asyncio.wait_for(work, left)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise DeadlineError("the request took too long", do="send fewer inputs") from error
        return Response(render(found.name, entries, tokens), media_type=JSON)

    async def _entries(
        self,
        asked: EmbeddingRequest,
        served: ServedModel,
        texts: Sequence[Sequence[int]],
        trace: Mapping[str, str],
    ) -> list[bytes]:
        """The embeddings as the answer has them, in the inputs' order."""
        entries = [b""] * len(texts)
        # of about the same length they are computed with little padding
        places = iter(sorted(range(len(texts)), key=lambda at: len(texts[at])))

        async def work() -> None:
            for at in places:
                made = await self._serving.backend.embed(
                    served.triton_model, texts[at], trace=trace
                )
                vector = cut(array("f", made), asked.dimensions, served.embedding)
                entries[at] = entry(at, vector, base64=asked.base64)

        if len(texts) == 1:
            await work()
            return entries
        tasks = [asyncio.ensure_future(work()) for _ in range(min(_AT_ONCE, len(texts)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return entries


def _check(asked: EmbeddingRequest, served: ServedModel, max_inputs: int) -> None:
    """Refuse more inputs than a request may have, and dimensions that the model doesn't."""
    if len(asked.inputs) > max_inputs:
        raise InvalidRequestError(f"more than {max_inputs} inputs - 'input'", param="input")
    wanted, given = asked.dimensions, served.embedding
    if wanted is None or (given and wanted == given.dimensions):
        return
    sizes = given.matryoshka_dimensions if given else None
    if given is None or sizes is None:
        raise InvalidRequestError(
            f"The model '{served.name}' does not support matryoshka representation, changing"
            " output dimensions",
            param="dimensions",
            do="leave it out",
        )
    if wanted > given.dimensions or (sizes and wanted not in sizes):
        known = ", ".join(map(str, sizes)) if sizes else f"1 to {given.dimensions}"
        raise InvalidRequestError(
            f"{wanted} is not one of the model's dimensions - 'dimensions'",
            param="dimensions",
            do=f"it has {known}",
        )


def cut(
    vector: array[float], dimensions: int | None, model: ServedEmbedding | None
) -> array[float]:
    """The first `dimensions` numbers of an embedding; of length 1 again, where the whole is."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    shorter = vector[:dimensions]
    length = math.hypot(*shorter)
    if not (model and model.normalize) or not length:
        return shorter
    return array("f", [number / length for number in shorter])
