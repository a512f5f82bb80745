"""Triton over gRPC: one bidirectional stream per request, so that closing it cancels just that."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server.backend import triton_wire
from server.backend.base import GenerateRequest, Tokens
from server.config import ServerConfig
from server.errors import (
    ContextLengthError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
)

_CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A Triton that comes back is found within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Nor does a container that comes back at another address wait for half a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)

# What Triton and TensorRT-LLM say in words, the first that matches; a row per kind of error.
_BY_MESSAGE: Final = (
    (r"maximum queue size|max_queue_size|queue is full", OverloadedError),
    (r"prompt length .* exceeds|exceeds .*(max_seq_len|max_input_len|maximum.*length)",
     ContextLengthError),
    (r"not healthy|no available versions|is not ready|shutting down|is closing|unknown model"
     r"|unavailable",
     NotReadyError),
    (r"unable to (parse|find)|unexpected (shape|datatype|inference input)|can't (be )?honou?r"
     r"|is not supported|must (be|lie) |invalid argument",
     InvalidRequestError),
)  # fmt: skip
_BY_STATUS: Final = {
    grpc.StatusCode.UNAVAILABLE: NotReadyError,
    grpc.StatusCode.NOT_FOUND: NotReadyError,
    grpc.StatusCode.CANCELLED: NotReadyError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
}
_MAX_SHOWN_CHARS = 500


class TritonBackend:
    """The model that takes token ids in one Triton's repository.

    Make it inside a running event loop: the channel belongs to that loop.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._model = config.model.triton_model
        self._stall_seconds = config.stall_seconds
        self._ready_timeout_seconds = config.ready_timeout_seconds
        self._channel = _channel(config)
        self._ending: set[Any] = set()
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Tokens]:
        """The answer's tokens as Triton sends them. Closing the iterator cancels the stream."""
        call = self._stub.ModelStreamInfer()
        watch = _StallWatch(call, self._stall_seconds)
        whole = False
        try:
            await call.write(triton_wire.encode(request, self._model))
            await call.done_writing()
            while (message := await call.read()) is not grpc.aio.EOF:
                watch.alive()
                if message.error_message:
                    raise error_of_message(message.error_message)
                tokens = triton_wire.decode(message.infer_response, log_probs=request.log_probs)
                whole = tokens.final
                yield tokens
                if whole:
                    return
            raise await _ended_early(call)
        except grpc.aio.AioRpcError as error:
            raise _error_of_status(error.code(), error.details()) from error
        except asyncio.InvalidStateError as error:  # written to a call that has ended already
            raise await _ended_early(call) from error
        except asyncio.CancelledError:
            if watch.stalled:
                raise NotReadyError("Triton stopped answering", do="try again") from None
            raise
        finally:
            watch.stop()
            if whole:
                # A cancel that meets the stream's own end leaves Triton holding the request, and
                # the model can't be unloaded: this stream ends by itself.
                self._ending.add(call)
                call.add_done_callback(self._ending.discard)
            else:
                call.cancel()

    async def ready(self) -> bool:
        """Whether Triton answers and its model is loaded."""
        try:
            answer = await self._stub.ModelReady(
                service_pb2.ModelReadyRequest(name=self._model),
                timeout=self._ready_timeout_seconds,
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def close(self) -> None:
        """Cancel every stream and close the connection."""
        await self._channel.close()


def _channel(config: ServerConfig) -> grpc.aio.Channel:
    tls = config.triton_tls
    if tls is None:
        return grpc.aio.insecure_channel(config.triton_address, options=_CHANNEL_OPTIONS)
    ca, key, certificate = (
        path.read_bytes() if path else None for path in (tls.ca, tls.key, tls.certificate)
    )
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.aio.secure_channel(config.triton_address, credentials, options=_CHANNEL_OPTIONS)


class _StallWatch:
    """Cancels a call that has been silent for too long, at the cost of a clock read a message."""

    def __init__(self, call: Any, seconds: float) -> None:
        self._call, self._seconds = call, seconds
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._check)
        self.stalled = False

    def alive(self) -> None:
        self._last = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        left = self._last + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
            return
        self.stalled = True
        self._call.cancel()


def error_of_message(message: str) -> RequestError:
    """Triton's words as one of our errors."""
    shown = message[:_MAX_SHOWN_CHARS]
    for pattern, kind in _BY_MESSAGE:
        if re.search(pattern, message, re.IGNORECASE):
            return kind(shown)
    return InternalError("Triton failed", found=shown)


def _error_of_status(code: grpc.StatusCode, details: str | None) -> RequestError:
    kind = _BY_STATUS.get(code)
    if kind is None:
        return error_of_message(details or code.name)
    return kind("Triton is not available", found=(details or code.name)[:_MAX_SHOWN_CHARS])


async def _ended_early(call: Any) -> RequestError:
    code = await call.code()
    if code == grpc.StatusCode.OK:
        return InternalError("Triton ended the stream without a final response")
    return _error_of_status(code, await call.details())
