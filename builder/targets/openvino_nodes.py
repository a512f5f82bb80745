"""The small nodes that every part of an OpenVINO graph is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from openvino import Node, Output
from openvino import opset15 as ops

LOGITS_INDICES = "logits_indices"
"""Input int64[S]: the rows (token positions in the step) whose logits are wanted."""


def int64(value: npt.ArrayLike) -> Node:
    """A constant for shapes, axes and indices."""
    return ops.constant(np.array(value, dtype=np.int64))


def float32(value: npt.ArrayLike) -> Node:
    """A constant for arithmetic."""
    return ops.constant(np.array(value, dtype=np.float32))


def scaled(states: Node, factor: float) -> Node:
    """`states` times `factor`."""
    return states if factor == 1 else ops.multiply(states, float32(factor))


def split(states: Node, sizes: Sequence[int], axis: int) -> list[Node]:
    """Parts of these sizes along an axis."""
    parts = ops.variadic_split(states, int64(axis), int64(sizes))
    return [parts.output(i) for i in range(len(sizes))]


def size(states: Node | Output, axis: int) -> int:
    """The length of an axis that is known when the graph is built."""
    output = states if isinstance(states, Output) else states.output(0)
    return int(output.get_partial_shape()[axis].get_length())


def heads_first(states: Node) -> Node:
    """Swap the second and third axes: [B, T, heads, size] ↔ [B, heads, T, size]."""
    return ops.transpose(states, int64([0, 2, 1, 3]))


def parameter(name: str, dtype: type, rank: int) -> Node:
    """An input of the graph, with axes of any length."""
    parameter = ops.parameter([-1] * rank, dtype)
    parameter.set_friendly_name(name)
    parameter.get_output_tensor(0).set_names({name})
    return parameter


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The graph's parameters: the names that OpenVINO's paged-attention transformation knows."""

    input_ids: Node = field(default_factory=lambda: parameter("input_ids", np.int64, 2))
    attention_mask: Node = field(default_factory=lambda: parameter("attention_mask", np.int64, 2))
    position_ids: Node = field(default_factory=lambda: parameter("position_ids", np.int64, 2))
    beam_idx: Node = field(default_factory=lambda: parameter("beam_idx", np.int32, 1))
    logits_indices: Node = field(default_factory=lambda: parameter(LOGITS_INDICES, np.int64, 1))

    def all(self) -> list[Node]:
        """In the order of the model's signature."""
        return list(vars(self).values())
