"""The feed-forward part of a layer: plain, gated, or gated with both projections in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openvino import Node
from openvino import opset15 as ops

from builder.targets.openvino_nodes import float32, split
from builder.targets.openvino_weights import Weights

Activation = Callable[[Node], Node]


def _silu(states: Node) -> Node:
    """Spelled out: of this the plugin makes the one-input swish that its fusion of experts knows,
    and `ops.swish` makes one of two inputs.
    """
    return ops.multiply(states, ops.sigmoid(states))


def _tanh_gelu(states: Node) -> Node:
    return ops.gelu(states, "tanh")


ACTIVATIONS: dict[str, Activation] = {
    "silu": _silu,
    "swiglu": _silu,
    "gelu": lambda states: ops.gelu(states, "erf"),
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": lambda states: ops.swish(states, float32(1.702)),
    "relu": ops.relu,
    "squared-relu": lambda states: ops.power(ops.relu(states), float32(2)),
}
"""By `hidden_act`, the names meaning what they mean to Hugging Face: TensorRT-LLM's `gelu` is the
tanh form, but a converter that knows better writes so."""
GATED = ("swiglu",)
"""Those that gate: without a tensor `gate`, `fc` holds what is gated, then what goes through the
activation."""


class MultilayerPerceptron:
    """A layer's MLP, its form told by the tensors."""

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._weights = weights
        self._gated = config["hidden_act"] in GATED
        self._activation = ACTIVATIONS[config["hidden_act"]]

    def __call__(self, hidden: Node, prefix: str) -> Node:
        """[B, T, hidden size] → the same shape."""
        inner = self._weights.linear(hidden, f"{prefix}.fc")
        if f"{prefix}.gate.weight" in self._weights:
            gate = self._weights.linear(hidden, f"{prefix}.gate")
            inner = ops.multiply(self._activation(inner), gate)
        elif self._gated:
            half = self._weights.shape(f"{prefix}.fc")[0] // 2
            gated, gate = split(inner, [half, half], axis=2)
            inner = ops.multiply(self._activation(gate), gated)
        else:
            inner = self._activation(inner)
        return self._weights.linear(inner, f"{prefix}.proj")
