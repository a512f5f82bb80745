"""A checkpoint's tensors as constants of an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov
from openvino import Node
from openvino import opset15 as ops

from builder.dequantize import Coding, coded_linear
from builder.safetensors_file import StoredTensor
from builder.targets.openvino_lora import Adapters
from builder.targets.openvino_nodes import split
from builder.targets.openvino_quantized import QuantizedLinear
from builder.targets.openvino_scratch import Scratch

_TYPES = {"float32": ov.Type.f32, "float16": ov.Type.f16, "bfloat16": ov.Type.bf16}


class Weights:
    """Tensors by name, which must outlive the graph: their bytes stay where they are mapped.

    `config` is the checkpoint's. What is computed goes into `scratch`, which must outlive the graph
    too, or without one into memory. `exact` is QuantizedLinear's. `adapters` are added to linears.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, StoredTensor],
        *,
        exact: bool = False,
        scratch: Scratch | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self._config, self._tensors = config, tensors
        self._exact, self._scratch, self._adapters = exact, scratch, adapters

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, prefix: str) -> tuple[int, ...]:
        """A linear's [(experts,) out, in]."""
        return coded_linear(self._config, self._tensors, prefix).shape

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
        """`hidden` [..., in] times `prefix.weight` [out, in], plus `prefix.bias` where it is.

        What adapters change of it is added.
        """
        product = self.products(hidden, prefix)[0]
        if f"{prefix}.bias" in self:
            product = ops.add(product, self.float32(f"{prefix}.bias"))
        return self._adapters.added(product, hidden, prefix) if self._adapters else product

    def products(self, hidden: Node, prefix: str, parts: int = 1) -> list[Node]:
        """`hidden` [(experts,) ..., in] times each of as many equal parts of a linear's outputs."""
        linear = coded_linear(self._config, self._tensors, prefix)
        size = linear.shape[-2] // parts
        if linear.coding is Coding.PLAIN:
            stored = self.stored(f"{prefix}.weight")
            pieces = split(stored, [size] * parts, len(linear.shape) - 2) if parts > 1 else [stored]
            matrices = [as_float32(piece) for piece in pieces]
        else:
            quantized = QuantizedLinear(linear, exact=self._exact, scratch=self._scratch)
            hidden = quantized.inputs(hidden)
            rows = (slice(begin, begin + size) for begin in range(0, size * parts, size))
            matrices = [quantized.matrix(each) for each in rows]
        return [ops.matmul(hidden, matrix, False, True) for matrix in matrices]


def as_float32(weight: Node) -> Node:
    """A stored weight ready for arithmetic."""
    is_float32 = weight.get_element_type() == ov.Type.f32
    return weight if is_float32 else ops.convert(weight, np.float32)
