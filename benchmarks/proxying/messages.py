"""The messages of the fake Triton, encoded once a request, so that a token costs it nothing."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

_TOKEN = 0x5A5A5A5A
"""Stands for the token's four bytes in an encoded message."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request's answers: gRPC messages around a token's four bytes, all but the last alike."""

    max_tokens: int
    before: bytes
    after: bytes
    last_before: bytes
    last_after: bytes

    @property
    def size_bytes(self) -> int:
        """Of a message that isn't the last."""
        return len(self.before) + 4 + len(self.after)


def encoded(request: bytes) -> Encoded:
    """The answers to a ModelInferRequest, as the C++ backend shapes them."""
    asked = service_pb2.ModelInferRequest.FromString(request)
    names = [tensor.name for tensor in asked.inputs]
    raw = asked.raw_input_contents[names.index("request_output_len")]
    before, after = _around(_response(asked.id, final=False))
    return Encoded(struct.unpack("<i", raw)[0], before, after, *_around(_response(asked.id, True)))


def ready() -> bytes:
    """A ModelReadyResponse, as a gRPC message."""
    return _message(service_pb2.ModelReadyResponse(ready=True).SerializeToString())


def _response(request_id: str, final: bool) -> bytes:
    response = service_pb2.ModelInferResponse(
        model_name="tensorrt_llm", model_version="1", id=request_id
    )
    response.parameters["triton_final_response"].bool_param = final
    tensors = [
        ("output_ids", "INT32", [1, 1, 1], struct.pack("<I", _TOKEN)),
        ("sequence_length", "INT32", [1, 1], struct.pack("<i", 1)),
    ]
    if final:
        now = struct.pack("<q", time.monotonic_ns())
        tensors.append(("kv_cache_reused_blocks", "INT32", [1, 1], struct.pack("<i", 0)))
        tensors += [
            (f"{what}_time_ns", "INT64", [1, 1], now)
            for what in ("arrival", "first_scheduled", "first_token", "last_token")
        ]
    for name, datatype, shape, value in tensors:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(value)
    whole = service_pb2.ModelStreamInferResponse(infer_response=response)
    return bytes(whole.SerializeToString())


def _around(content: bytes) -> tuple[bytes, bytes]:
    before, _, after = _message(content).partition(struct.pack("<I", _TOKEN))
    return before, after


def _message(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4, "big") + content
