"""`tensorrt_llm`'s tensors on the wire: a GenerateRequest to protobuf, a response to Tokens.

The model batches, so every tensor has a leading dimension of 1. Names, types and dims are those
of TensorRT-LLM's inflight_batcher_llm repository.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tritonclient.grpc import service_pb2

from server.backend.base import GenerateRequest, Tokens
from server.errors import InternalError

_FINAL: Final = "triton_final_response"
_WANT_EMPTY_FINAL: Final = "triton_enable_empty_final_response"
_PADDING: Final = -1
_SWAP = sys.byteorder != "little"

Data = tuple[list[int], bytes]
"""A tensor's shape and its little-endian bytes."""


@dataclass(frozen=True, slots=True)
class Input:
    """One tensor of a request: where it comes from; None leaves it out."""

    name: str
    datatype: str
    make: Callable[[GenerateRequest], Data | None]


def _int32s(values: Sequence[int]) -> bytes:
    data = array("i", values)
    if _SWAP:
        data.byteswap()
    return data.tobytes()


def _scalar(layout: str, value: Any) -> Data:
    return [1, 1], struct.pack(layout, value)


def _int32(field: str) -> Callable[[GenerateRequest], Data]:
    return lambda request: _scalar("<i", getattr(request, field))


def _fp32(field: str) -> Callable[[GenerateRequest], Data | None]:
    def make(request: GenerateRequest) -> Data | None:
        value = getattr(request, field)
        return None if value is None else _scalar("<f", value)

    return make


def _true(_: GenerateRequest) -> Data:
    return _scalar("<?", True)


def _input_ids(request: GenerateRequest) -> Data:
    return [1, len(request.input_ids)], _int32s(request.input_ids)


def _pad_id(request: GenerateRequest) -> Data | None:
    """The end id pads, as is the engine's own default; without one there is nothing to pad."""
    return None if request.end_id < 0 else _scalar("<i", request.end_id)


def _stop_words(request: GenerateRequest) -> Data | None:
    """One-token words: row 0 their ids, row 1 each word's end, padded to equal length."""
    ids = request.stop_ids
    if not ids:
        return None
    return [1, 2, len(ids)], _int32s([*ids, *range(1, len(ids) + 1)])


INPUTS: Final = (
    Input("input_ids", "INT32", _input_ids),
    Input("input_lengths", "INT32", lambda r: _scalar("<i", len(r.input_ids))),
    Input("request_output_len", "INT32", _int32("max_tokens")),
    Input("end_id", "INT32", _int32("end_id")),
    Input("pad_id", "INT32", _pad_id),
    Input("stop_words_list", "INT32", _stop_words),
    Input("temperature", "FP32", _fp32("temperature")),
    Input("runtime_top_k", "INT32", _int32("top_k")),
    Input("runtime_top_p", "FP32", _fp32("top_p")),
    Input("repetition_penalty", "FP32", _fp32("repetition_penalty")),
    Input("presence_penalty", "FP32", _fp32("presence_penalty")),
    Input("frequency_penalty", "FP32", _fp32("frequency_penalty")),
    Input("seed", "UINT64", lambda r: _scalar("<Q", r.seed)),
    Input("min_tokens", "INT32", _int32("min_tokens")),
    Input("return_log_probs", "BOOL", lambda r: _scalar("<?", r.log_probs)),
    Input("streaming", "BOOL", _true),
    Input("exclude_input_in_output", "BOOL", _true),
)


def encode(request: GenerateRequest, model: str) -> service_pb2.ModelInferRequest:
    """The request for Triton's `model`, values as raw bytes in the order of the tensors."""
    infer = service_pb2.ModelInferRequest(model_name=model, id=request.request_id)
    # Without it, Triton drops a final response that has no outputs.
    infer.parameters[_WANT_EMPTY_FINAL].bool_param = True
    for tensor in INPUTS:
        data = tensor.make(request)
        if data is None:
            continue
        shape, raw = data
        infer.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        infer.raw_input_contents.append(raw)
    for name in ("output_ids", "sequence_length"):
        infer.outputs.add(name=name)
    if request.log_probs:
        infer.outputs.add(name="output_log_probs")
    return infer


def decode(response: service_pb2.ModelInferResponse, *, log_probs: bool = False) -> Tokens:
    """New tokens of a response; the final one may have no outputs at all.

    Raises InternalError when `log_probs` were asked for and aren't there for every token.
    """
    ids: Sequence[int] = ()
    values: Sequence[float] = ()
    length = None
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.name == "output_ids":
            ids = _values("i", raw)
        elif output.name == "output_log_probs":
            values = _values("f", raw)
        elif output.name == "sequence_length":
            length = _values("i", raw)[0]
    if length is not None and length < len(ids):
        ids = ids[:length]  # the rest is padding
    final = response.parameters[_FINAL].bool_param if response.parameters else False
    if not log_probs:
        return Tokens(ids=ids, final=final)
    if len(values) < len(ids):
        raise InternalError(
            "Triton gave too few log probabilities", found=f"{len(values)} for {len(ids)} tokens"
        )
    return Tokens(ids=ids, log_probs=values[: len(ids)], final=final)


def _values(typecode: str, raw: bytes) -> Any:
    data = array(typecode, raw)
    if _SWAP:
        data.byteswap()
    return data
