"""Triton over gRPC: one bidirectional stream per request, so that closing it cancels just that."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from server.backend.base import GenerateRequest
from server.backend.http2 import address
from server.backend.http2.channel import Channel
from server.backend.http2.limits import Limits
from server.backend.http2.status import CallError
from server.backend.triton import messages
from server.backend.triton.endpoints import Endpoint, Endpoints, addresses
from server.backend.triton.protobuf import MalformedError
from server.backend.triton.stream import TritonStream, trace_metadata
from server.backend.triton.words import error_of_call
from server.config import ServedModel, ServerConfig
from server.errors import InternalError, RequestError

_LOOKS: Final = 4
"""Looks at each stream within the time after which a silent one is given up."""


class TritonBackend:
    """The models that take token ids, in the repository of one Triton or several alike.

    It may be made anywhere; the connections belong to the event loop that uses it first.
    """

    def __init__(self, config: ServerConfig, limits: Limits | None = None) -> None:
        self._models = {model.triton_model: model for model in config.models}
        self._default = config.models[0]
        self._stall_seconds = config.stall_seconds
        secure = address.context(config.triton_tls)
        channels = [Channel(each, tls=secure, limits=limits) for each in addresses(config)]
        self._endpoints = Endpoints(config, channels)
        self._streams: set[TritonStream] = set()
        self._timer: asyncio.TimerHandle | None = None

    def generate(self, request: GenerateRequest) -> TritonStream:
        """Begin to answer."""
        self._endpoints.start()
        stream = TritonStream(self, request, self._model(request.model))
        if not stream.over:
            self._streams.add(stream)
            if self._timer is None:
                self._look_later()
        return stream

    async def embed(
        self, model: str, input_ids: Sequence[int], *, trace: Mapping[str, str]
    ) -> Sequence[float]:
        """An encoder's `embedding`, float32."""
        self._endpoints.start()
        message, metadata = messages.embed_request(model, input_ids), trace_metadata(trace)
        tried: set[Endpoint] = set()
        asked: set[Endpoint] = set()  # they are once more: a connection may just have been ending
        failure: RequestError | None = None
        while len(tried) < len(self._endpoints.all):
            endpoint = self.choose(model, tried)
            endpoint.in_flight += 1
            try:
                answer = await endpoint.channel.unary(
                    messages.INFER_PATH,
                    message,
                    timeout_seconds=self._stall_seconds,
                    metadata=metadata,
                )
                return _embedding(answer)
            except CallError as error:
                failure = error_of_call(error)
                if not error.untaken:
                    break
                if endpoint in asked:
                    tried.add(endpoint)
                asked.add(endpoint)
            finally:
                endpoint.in_flight -= 1
        raise failure or InternalError("no Triton is configured")

    async def ready(self, model: str) -> bool:
        """Whether a Triton answers and has the model loaded."""
        return await self._endpoints.ready(model)

    async def close(self) -> None:
        """Cancel every stream and close the connections."""
        for stream in list(self._streams):
            stream.cancel()
        if self._timer is not None:
            self._timer.cancel()
        await self._endpoints.close()

    def choose(self, model: str, tried: set[Endpoint]) -> Endpoint:
        """For streams: who is asked."""
        return self._endpoints.choose(model, tried)

    def left(self, stream: TritonStream) -> None:
        """For streams: one is over."""
        self._streams.discard(stream)

    def _model(self, name: str) -> ServedModel:
        return self._models.get(name, self._default)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._stall_seconds / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        for stream in list(self._streams):
            stream.look(_LOOKS)
        if self._streams:
            self._look_later()


def _embedding(message: bytes) -> Sequence[float]:
    try:
        tensor = messages.infer_response(message).tensors.get(messages.EMBEDDING)
    except MalformedError as error:
        raise InternalError("Triton's answer can't be read", found=str(error)) from error
    if tensor is None or tensor.datatype != "FP32" or (tensor.span[1] - tensor.span[0]) % 4:
        raise InternalError("Triton gave no embedding, or one of an unknown form")
    start, end = tensor.span
    return struct.unpack(f"<{(end - start) // 4}f", message[start:end])
