"""Tensors of numpy as Triton's gRPC messages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from triton_repo.runtime.text_model.request import Array, Tensors


def encode(model: str, inputs: Mapping[str, Array], outputs: Iterable[str]) -> Any:
    """A request to `model` for `outputs`."""
    request = service_pb2.ModelInferRequest(model_name=model)
    # without it, Triton drops a final response that has no outputs
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, value in inputs.items():
        datatype = np_to_triton_dtype(value.dtype)
        request.inputs.add(name=name, datatype=datatype, shape=value.shape)
        request.raw_input_contents.append(_raw(value, datatype))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def decode(response: Any) -> Tensors:
    """A response's outputs by name."""
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: _array(output, raw) for output, raw in pairs}


def final(response: Any) -> bool:
    """Whether it is the request's last."""
    return bool(response.parameters["triton_final_response"].bool_param)


def _raw(value: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return value.tobytes()
    return b"".join(serialize_byte_tensor(value).flatten()) if value.size else b""


def _array(output: Any, raw: bytes) -> Array:
    if output.datatype == "BYTES":
        flat: Array = deserialize_bytes_tensor(raw)
    else:
        flat = np.frombuffer(raw, triton_to_np_dtype(output.datatype))
    return flat.reshape(tuple(output.shape))
