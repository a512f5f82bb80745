"""LayerNorm and RMSNorm, and which of them a model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openvino import Node
from openvino import opset15 as ops

from builder.targets.openvino_nodes import float32, int64
from builder.targets.openvino_weights import Weights

LAYER_NORM_WITHOUT_BIAS = frozenset(
    {"CohereForCausalLM", "DbrxForCausalLM", "MPTForCausalLM", "MptForCausalLM"}
)
"""Architectures whose norms look like RMSNorm's, a weight and no bias, and aren't."""
DEFAULT_EPSILON = 1e-5
"""TensorRT-LLM's, for checkpoints without `norm_epsilon`."""


class Norm:
    """The norm of a model. A tensor `bias` tells LayerNorm; else the architecture does."""

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._weights = weights
        self._centred = config["architecture"] in LAYER_NORM_WITHOUT_BIAS
        self._epsilon = float(config.get("norm_epsilon") or DEFAULT_EPSILON)

    def __call__(self, hidden: Node, prefix: str) -> Node:
        """`hidden` [..., size] normalised over its last axis and scaled by `prefix.weight`."""
        weight = self._weights.float32(f"{prefix}.weight")
        if f"{prefix}.bias" in self._weights:
            scaled = ops.multiply(self._layer_norm(hidden), weight)
            return ops.add(scaled, self._weights.float32(f"{prefix}.bias"))
        normalised = self._layer_norm(hidden) if self._centred else self._rms_norm(hidden)
        return ops.multiply(normalised, weight)

    def _layer_norm(self, hidden: Node) -> Node:
        return ops.mvn(hidden, int64([-1]), True, self._epsilon, "inside_sqrt")

    def _rms_norm(self, hidden: Node) -> Node:
        """Written as the CPU plugin's fusion expects it."""
        mean = ops.reduce_mean(ops.power(hidden, float32(2)), int64([-1]), True)
        root = ops.sqrt(ops.add(mean, float32(self._epsilon)))
        return ops.divide(hidden, root)
