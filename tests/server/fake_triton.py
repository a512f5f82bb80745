"""A gRPC server of the tests' own that speaks GRPCInferenceService as Triton does."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

Send = Callable[[service_pb2.ModelStreamInferResponse], Awaitable[None]]
Behaviour = Callable[[service_pb2.ModelInferRequest, Send], Awaitable[None]]


def answer(
    ids: Sequence[int],
    *,
    log_probs: Sequence[float] = (),
    final: bool = False,
    length: int | None = None,
) -> service_pb2.ModelStreamInferResponse:
    """A response with new tokens, [1, 1, k], as the C++ backend shapes it."""
    response = service_pb2.ModelInferResponse(model_name="tensorrt_llm")
    response.parameters["triton_final_response"].bool_param = final
    tensors: list[tuple[str, str, list[int], bytes]] = [
        (
            "sequence_length",
            "INT32",
            [1, 1],
            struct.pack("<i", len(ids) if length is None else length),
        ),
        ("output_ids", "INT32", [1, 1, len(ids)], struct.pack(f"<{len(ids)}i", *ids)),
    ]
    if log_probs:
        raw = struct.pack(f"<{len(log_probs)}f", *log_probs)
        tensors.append(("output_log_probs", "FP32", [1, 1, len(log_probs)], raw))
    for name, datatype, shape, raw in tensors:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(raw)
    return service_pb2.ModelStreamInferResponse(infer_response=response)


def of_sequence(response: Any, number: int) -> Any:
    """A response as one of several sequences'."""
    content = response.infer_response
    content.outputs.add(name="sequence_index", datatype="INT32", shape=[1, 1])
    content.raw_output_contents.append(number.to_bytes(4, "little"))
    return response


def empty_final() -> service_pb2.ModelStreamInferResponse:
    """The final flag alone."""
    response = service_pb2.ModelInferResponse()
    response.parameters["triton_final_response"].bool_param = True
    return service_pb2.ModelStreamInferResponse(infer_response=response)


def failure(message: str) -> service_pb2.ModelStreamInferResponse:
    """An error, told in a message."""
    return service_pb2.ModelStreamInferResponse(error_message=message)


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers by `behaviour`; keeps the requests, and the ids of the cancelled ones.

    `sent` counts messages, `ended` requests; `metadata` are theirs. An encoder is
    answered for with `embedding`.
    """

    behaviour: Behaviour
    ready: bool = True
    embedding: Sequence[float] = (0.5, -0.5)
    metadata: list[dict[str, str]] = field(default_factory=list)
    address: str = ""
    requests: list[service_pb2.ModelInferRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    cancellation: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0
    ended: int = 0

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Readiness of the one model."""
        ready = self.ready and request.name == "tensorrt_llm"
        return service_pb2.ModelReadyResponse(ready=ready)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """A text's embedding."""
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        shape = [1, len(self.embedding)]
        response.outputs.add(name="embedding", datatype="FP32", shape=shape)
        response.raw_output_contents.append(struct.pack(f"<{shape[1]}f", *self.embedding))
        return response

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> None:
        """One request's stream."""
        self.metadata.append(dict(context.invocation_metadata()))

        async def send(response: Any) -> None:
            await context.write(response)
            self.sent += 1

        async for request in request_iterator:
            self.requests.append(request)
            # As Triton, which drops an empty final response that was not asked for.
            assert request.parameters["triton_enable_empty_final_response"].bool_param
            try:
                await self.behaviour(request, send)
            except asyncio.CancelledError:
                self.cancelled.append(request.id)
                self.cancellation.set()
                raise
            self.ended += 1


@asynccontextmanager
async def fake_triton(behaviour: Behaviour, port: int = 0) -> AsyncIterator[FakeTriton]:
    """Serve for the length of the context."""
    triton = FakeTriton(behaviour)
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    triton.address = f"127.0.0.1:{bound}"
    await server.start()
    try:
        yield triton
    finally:
        await server.stop(0)
