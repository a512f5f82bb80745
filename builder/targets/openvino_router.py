"""Which experts compute a token, and with what weight.

The modes are those of TensorRT-LLM 1.2's `MoeConfig.normalization_mode` that a family has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openvino import Node
from openvino import opset15 as ops

from builder.families.mixture import RENORMALIZE, SPARSE_MIXER
from builder.targets.openvino_nodes import float32, int64


def route(scores: Node, moe: Mapping[str, Any]) -> tuple[Node, Node]:
    """Router scores float32[tokens, experts] → weights and indices of the chosen, [tokens, k].

    `moe` is the checkpoint's `moe` object.
    """
    mode = moe["normalization_mode"]
    if mode == SPARSE_MIXER:
        return _sparse_mixer(scores, float(moe["sparse_mixer_epsilon"]))
    if mode == RENORMALIZE:
        weights, indices = _largest(scores, moe["top_k"])
        return ops.softmax(weights, -1), indices
    return _largest(ops.softmax(scores, -1), moe["top_k"])


def _largest(values: Node, count: int) -> tuple[Node, Node]:
    top = ops.topk(values, int64(count), -1, "max", "value", index_element_type="i64")
    return top.output(0), top.output(1)


def _sparse_mixer(scores: Node, epsilon: float) -> tuple[Node, Node]:
    """Two experts, each weighed against those whose score comes close to its own (PhiMoE)."""
    minus_infinity = float32(float("-inf"))

    def choose(candidates: Node) -> tuple[Node, Node]:
        best, index = _largest(candidates, 1)
        size = ops.maximum(ops.abs(scores), best)
        far = ops.greater(ops.divide(ops.subtract(best, scores), size), float32(2 * epsilon))
        shares = ops.softmax(ops.select(far, minus_infinity, candidates), -1)
        return ops.gather_elements(shares, index, 1), index

    first, first_index = choose(scores)
    infinities = ops.broadcast(minus_infinity, ops.shape_of(first_index))
    rest = ops.scatter_elements_update(scores, first_index, infinities, int64(1))
    second, second_index = choose(rest)
    return ops.concat([first, second], 1), ops.concat([first_index, second_index], 1)
