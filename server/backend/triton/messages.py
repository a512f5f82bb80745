"""The messages of Triton's gRPC service, to and from bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from server.backend.base import GenerateRequest
from server.backend.triton import protobuf
from server.backend.triton.protobuf import MalformedError, Span
from server.backend.triton.tensors import INPUTS, OUTPUTS, int32s
from server.config import ServedModel
from server.errors import InvalidRequestError

_SERVICE: Final = "/inference.GRPCInferenceService/"
STREAM_PATH: Final = _SERVICE + "ModelStreamInfer"
INFER_PATH: Final = _SERVICE + "ModelInfer"
READY_PATH: Final = _SERVICE + "ModelReady"

EMBEDDING: Final = "embedding"
_FINAL: Final = "triton_final_response"
_SMALL_BYTES: Final = 8


def _parameter(name: str, value: bool) -> bytes:
    entry = protobuf.field(1, name.encode()) + protobuf.field(2, protobuf.flag(1, value))
    return protobuf.field(4, entry)


# Without it, Triton drops a final response that has no outputs.
_WANT_EMPTY_FINAL: Final = _parameter("triton_enable_empty_final_response", True)
_WANTED: Final = {
    tensor.name: protobuf.field(6, protobuf.field(1, tensor.name.encode())) for tensor in OUTPUTS
}


@dataclass(slots=True)
class Tensor:
    """An output: where its raw bytes are in the message."""

    name: str = ""
    datatype: str = ""
    shape: Sequence[int] = ()
    span: Span = (0, 0)


@dataclass(slots=True)
class Response:
    """A ModelInferResponse, or an error in the place of one."""

    error: str = ""
    final: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)


def generate_request(request: GenerateRequest, model: ServedModel) -> bytes:
    """A ModelInferRequest, values as raw bytes in the order of the tensors.

    Raises InvalidRequestError for what the model can't be asked.
    """
    described: list[bytes] = []
    values: list[bytes] = []
    for tensor in INPUTS:
        try:
            data = tensor.make(request, model)
        except (struct.error, OverflowError, UnicodeEncodeError) as error:
            raise InvalidRequestError(
                f"{tensor.name} can't be what was asked", found=str(error)
            ) from error
        if data is not None:
            shape, raw = data
            described.append(_input(tensor.name, tensor.datatype, shape))
            values.append(_small_value(raw) if len(raw) <= _SMALL_BYTES else _value(raw))
    wanted = [_WANTED[tensor.name] for tensor in OUTPUTS if tensor.wanted(request)]
    name = protobuf.field(1, request.model.encode())
    identity = protobuf.field(3, request.request_id.encode())
    return b"".join((name, identity, _WANT_EMPTY_FINAL, *described, *wanted, *values))


def embed_request(model: str, input_ids: Sequence[int]) -> bytes:
    """A ModelInferRequest to an encoder."""
    return b"".join(
        (
            protobuf.field(1, model.encode()),
            _input("input_ids", "INT32", (1, len(input_ids))),
            _input("input_lengths", "INT32", (1, 1)),
            protobuf.field(6, protobuf.field(1, EMBEDDING.encode())),
            protobuf.field(7, int32s(input_ids)),
            protobuf.field(7, int32s([len(input_ids)])),
        )
    )


def ready_request(model: str) -> bytes:
    """A ModelReadyRequest."""
    return protobuf.field(1, model.encode())


def is_ready(message: bytes) -> bool:
    """What a ModelReadyResponse says. Raises MalformedError."""
    return (1, 1) in protobuf.fields(message, (0, len(message)))


def stream_response(message: bytes) -> Response:
    """A ModelStreamInferResponse. Raises MalformedError."""
    response = Response()
    for number, found in protobuf.fields(message, (0, len(message))):
        if number == 1:
            response.error = protobuf.text(message, found)
        elif number == 2:
            _read_response(message, protobuf.span_of(found), response)
    return response


def infer_response(message: bytes) -> Response:
    """A ModelInferResponse. Raises MalformedError."""
    response = Response()
    _read_response(message, (0, len(message)), response)
    return response


@lru_cache(maxsize=512)
def _input(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    return protobuf.field(5, protobuf.tensor(name, datatype, shape))


def _value(raw: bytes) -> bytes:
    return protobuf.field(7, raw)


_small_value = lru_cache(maxsize=512)(_value)  # most are the same from one request to the next


def _read_response(message: bytes, span: Span, response: Response) -> None:
    tensors: list[Tensor] = []
    raw: list[Span] = []
    for number, found in protobuf.fields(message, span):
        if number == 4:
            name, value = _read_parameter(message, protobuf.span_of(found))
            if name == _FINAL:
                response.final = value
        elif number == 5:
            tensors.append(_read_tensor(message, protobuf.span_of(found)))
        elif number == 6:
            raw.append(protobuf.span_of(found))
    if len(raw) != len(tensors):
        raise MalformedError(f"{len(tensors)} outputs with {len(raw)} values")
    for tensor, where in zip(tensors, raw, strict=True):
        tensor.span = where
        response.tensors[tensor.name] = tensor


def _read_parameter(message: bytes, span: Span) -> tuple[str, bool]:
    name, value = "", False
    for number, found in protobuf.fields(message, span):
        if number == 1:
            name = protobuf.text(message, found)
        elif number == 2:
            value = (1, 1) in protobuf.fields(message, protobuf.span_of(found))
    return name, value


def _read_tensor(message: bytes, span: Span) -> Tensor:
    tensor = Tensor()
    shape: list[int] = []
    for number, found in protobuf.fields(message, span):
        if number == 1:
            tensor.name = protobuf.text(message, found)
        elif number == 2:
            tensor.datatype = protobuf.text(message, found)
        elif number == 3:
            shape += protobuf.numbers(message, found)
    tensor.shape = shape
    return tensor
