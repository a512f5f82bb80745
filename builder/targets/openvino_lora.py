"""Adapters beside a layer's linears: their weights are inputs of the graph, chosen for each token.

Every linear that adapters may change has the columns of all adapters of a step side by side, and a
mask says which of them a token has. So requests with different adapters, and without one, are
computed together in two small products, and a step without adapters has no columns at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
from openvino import Node
from openvino import opset15 as ops

from builder.targets.openvino_nodes import size

_LAYER = re.compile(r"transformer\.layers\.(\d+)\.(.+)")


class Adapters:
    """The inputs for adapters of some linears (`attention.qkv`, …) of each layer.

    Of a linear [in, out] in a layer they are `lora.<layer>.<linear>.a` float32[R, in] and `.b`
    float32[R, out], R being the ranks of the step's adapters together; of all layers' linears of
    that name, `lora.<linear>.mask` float32[B, T, R], which is 1 where a token has the column.
    """

    def __init__(self, linears: Collection[str]) -> None:
        self._linears = linears
        self._masks: dict[str, Node] = {}
        self.parameters: list[Node] = []

    def added(self, product: Node, hidden: Node, prefix: str) -> Node:
        """`product` [..., out] and what the tokens' adapters make of `hidden` [..., in]."""
        match = _LAYER.fullmatch(prefix)
        if match is None or match[2] not in self._linears:
            return product
        layer, linear = match.groups()
        if linear not in self._masks:
            self._masks[linear] = self._input(f"lora.{linear}.mask", [-1, -1, -1])
        into = self._input(f"lora.{layer}.{linear}.a", [-1, size(hidden, 2)])
        out = self._input(f"lora.{layer}.{linear}.b", [-1, size(product, 2)])
        columns = ops.multiply(ops.matmul(hidden, into, False, True), self._masks[linear])
        return ops.add(product, ops.matmul(columns, out, False, False))

    def _input(self, name: str, shape: list[int]) -> Node:
        parameter = ops.parameter(shape, np.float32)
        parameter.set_friendly_name(name)
        parameter.get_output_tensor(0).set_names({name})
        self.parameters.append(parameter)
        return parameter
