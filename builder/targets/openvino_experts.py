"""Mixture of experts: a router chooses for each token which of many MLPs compute it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openvino import Node
from openvino import opset15 as ops

from builder.targets.openvino_mlp import ACTIVATIONS, MultilayerPerceptron
from builder.targets.openvino_nodes import float32, int64
from builder.targets.openvino_router import route
from builder.targets.openvino_weights import Weights


class Experts:
    """The experts of a layer, and the shared one that computes every token where there is one."""

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._config, self._weights = config, weights
        self._activation = ACTIVATIONS[config["hidden_act"]]
        self._mlp = MultilayerPerceptron(config, weights)

    def __call__(self, hidden: Node, prefix: str) -> Node:
        """[B, T, hidden size] → the same shape."""
        mixed = self._mixed(hidden, prefix)
        shared = f"{prefix}.shared_expert"
        if f"{shared}.fc.weight" not in self._weights:
            return mixed
        common = self._mlp(hidden, shared)
        if f"{prefix}.shared_expert_gate.weight" in self._weights:
            gate = self._weights.linear(hidden, f"{prefix}.shared_expert_gate")
            common = ops.multiply(ops.sigmoid(gate), common)
        return ops.add(mixed, common)

    def _mixed(self, hidden: Node, prefix: str) -> Node:
        """The sum of the chosen experts.

        Written as every expert over every token, in the form that the CPU plugin turns into the
        chosen experts only (where the activation is SiLU; else it stays so, right but slow).
        """
        experts = self._weights.shape(f"{prefix}.fc")[0]
        size = self._config["hidden_size"]
        tokens = ops.reshape(hidden, int64([-1, size]), False)
        shares = self._shares(tokens, prefix)
        copies = ops.reshape(
            ops.tile(tokens, int64([experts, 1])), int64([experts, -1, size]), False
        )
        up, gate = self._weights.products(copies, f"{prefix}.fc", parts=2)
        product = ops.multiply(self._activation(gate), up)
        (product,) = self._weights.products(product, f"{prefix}.proj")
        shape = ops.concat([int64([experts]), ops.shape_of(hidden)], 0)
        spread = ops.unsqueeze(
            ops.reshape(shares, ops.slice(shape, int64([0]), int64([3]), int64([1])), False),
            int64(3),
        )
        product = ops.multiply(ops.reshape(product, shape, False), spread)
        return ops.reduce_sum(product, int64([0]), False)

    def _shares(self, tokens: Node, prefix: str) -> Node:
        """Each expert's weight for each token, [experts, tokens]: zero where it isn't chosen."""
        scores = self._weights.linear(tokens, f"{prefix}.router")
        weights, indices = route(scores, self._config["moe"])
        nothing = ops.broadcast(float32(0), ops.shape_of(scores))
        shares = ops.scatter_elements_update(nothing, indices, weights, int64(1))
        return ops.transpose(shares, int64([1, 0]))
