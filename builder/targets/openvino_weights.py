"""A checkpoint's tensors as constants of an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openvino as ov
from openvino import Node
from openvino import opset15 as ops

from builder.safetensors_file import StoredTensor

_TYPES = {"float32": ov.Type.f32, "float16": ov.Type.f16, "bfloat16": ov.Type.bf16}


class Weights:
    """Tensors by name, which must outlive the graph: their bytes stay where they are mapped."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The stored shape."""
        return self._tensors[name].shape

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same."""
        first, second = self._tensors[one], self._tensors[other]
        return (first.shape, first.dtype) == (second.shape, second.dtype) and (
            first.data() == second.data()
        )

    def float32(self, name: str) -> Node:
        """A tensor as float32 for the graph, in its stored dtype in the file."""
        return as_float32(self.stored(name))

    def stored(self, name: str) -> Node:
        """A tensor as it is stored."""
        tensor = self._tensors[name]
        raw = np.frombuffer(tensor.data(), np.uint8)
        stored = ov.Tensor(raw, list(tensor.shape), _TYPES[tensor.dtype])
        constant = ops.constant(stored, shared_memory=True)
        constant.set_friendly_name(name)
        return constant

    def linear(self, hidden: Node, prefix: str) -> Node:
        """`hidden` [..., in] times `prefix.weight` [out, in], plus `prefix.bias` where it is."""
        product = ops.matmul(hidden, self.float32(f"{prefix}.weight"), False, True)
        if f"{prefix}.bias" in self:
            return ops.add(product, self.float32(f"{prefix}.bias"))
        return product


def as_float32(weight: Node) -> Node:
    """A stored weight ready for arithmetic."""
    is_float32 = weight.get_element_type() == ov.Type.f32
    return weight if is_float32 else ops.convert(weight, np.float32)
