"""What a query may attend to, in the forms that OpenVINO's paged-attention transformation knows.

The transformation drops the mask, for paged attention is causal, and takes two things out of it: a
sliding window and ALiBi's slopes. It finds them by the shape of the subgraph and says nothing when
it doesn't: a test compares the logits of models that have them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Node
from openvino import opset15 as ops

from builder.limits import window_tokens
from builder.targets.openvino_nodes import Inputs, float32, int64

ALIBI = ("alibi", "alibi_with_scale")
"""Position embeddings that lower a key's score with its distance, by a slope for each head."""


class Masks:
    """Additive float32[B, 1 or heads, T, L]: lowest where a key may not be seen."""

    def __init__(self, config: Mapping[str, Any], inputs: Inputs) -> None:
        self._config = config
        self._length = ops.gather(ops.shape_of(inputs.attention_mask), int64(1), int64(0))
        self._keys = ops.range(int64(0), self._length, int64(1), "i64")
        self._queries = ops.unsqueeze(inputs.position_ids, int64([1, 3]))
        self._causal = ops.less_equal(self._keys, self._queries)
        self._lowest = float32(np.finfo(np.float32).min)
        self._made: dict[int, Node] = {}

    def of(self, layer: int) -> Node:
        """The mask of a layer; layers with the same window share it."""
        window = window_tokens(self._config, layer)
        if window not in self._made:
            self._made[window] = self._make(window)
        return self._made[window]

    def _make(self, window: int) -> Node:
        if self._config.get("position_embedding_type") in ALIBI:
            return self._sloped()
        if window:
            return self._sliding(window)
        return ops.select(self._causal, float32(0), self._lowest)

    def _sloped(self) -> Node:
        """The pattern is BLOOM's: slopes times positions, reshaped twice, then selected."""
        slopes = alibi_slopes(self._config).reshape(1, -1, 1, 1)
        keys = ops.convert(ops.reshape(self._keys, int64([1, 1, 1, -1]), False), np.float32)
        bias = ops.multiply(float32(slopes), keys)
        for shape in ([1, slopes.size, -1], [1, slopes.size, 1, -1]):
            bias = ops.reshape(bias, int64(shape), False)
        return ops.select(ops.logical_not(self._causal), self._lowest, bias)

    def _sliding(self, window: int) -> Node:
        """The pattern is GPT-OSS's: a key is later than the query minus the window, and so on."""
        true = ops.constant(np.array(True))
        inside = ops.greater(self._keys, ops.add(self._queries, int64(-window)))
        seen = ops.bitwise_and(ops.bitwise_and(true, inside), self._causal)
        seen = ops.bitwise_and(ops.bitwise_and(true, seen), true)
        seen = ops.broadcast(seen, ops.shape_of(seen))
        mask = ops.select(seen, float32(0), self._lowest)
        end = ops.unsqueeze(self._length, int64(0))
        return ops.slice(mask, int64([0]), end, int64([1]), int64([3]))


def alibi_slopes(config: Mapping[str, Any]) -> NDArray[np.float64]:
    """ALiBi's slope for each head, float64[heads] (arXiv 2108.12409).

    A power of two of heads has a geometric series; other numbers take every second slope of the
    next power of two first. `alibi_with_scale` (Falcon) scales them as it does the scores.
    """
    heads = config["num_attention_heads"]
    power = 2 ** math.ceil(math.log2(heads))
    exponents = np.arange(1, power + 1) * (config.get("alibi_bias_max") or 8) / power
    slopes: NDArray[np.float64] = 2.0**-exponents
    if power != heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:heads]
    if config["position_embedding_type"] == "alibi_with_scale":
        slopes = slopes / math.sqrt(config["head_size"])
    return slopes
