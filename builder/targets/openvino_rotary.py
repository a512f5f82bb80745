"""Rotary positions: pairs of a head's numbers turned by their position's angle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from openvino import Node
from openvino import opset15 as ops

from builder.targets.openvino_frequencies import frequencies, rotary_size
from builder.targets.openvino_nodes import float32, int64, scaled, size, split

HALVES = ("rope_gpt_neox", "long_rope")
"""Position embeddings that pair the halves of what is rotated, number j with j + size / 2."""
NEIGHBOURS = ("rope_gptj",)
"""Those that pair neighbours, number 2j with 2j + 1."""


class Rotary:
    """The rotary positions of one step. `base` is another base than the config's."""

    def __init__(
        self, config: Mapping[str, Any], position_ids: Node, *, base: float | None = None
    ) -> None:
        self._neighbours = config["position_embedding_type"] in NEIGHBOURS
        self._size = rotary_size(config)
        base = base or config.get("rotary_base") or config.get("rotary_emb_base") or 10_000.0
        speeds, factor = frequencies(config, float(base), self._size)
        positions = ops.convert(ops.unsqueeze(position_ids, int64(1)), np.float32)
        turned = ops.matmul(float32(speeds.reshape(1, -1, 1)), positions, False, False)
        angles = ops.transpose(turned, int64([0, 2, 1]))
        angles = ops.concat([angles, angles], 2)
        # [B, 1, T, size]
        self._cos = ops.unsqueeze(scaled(ops.cos(angles), factor), int64(1))
        self._sin = ops.unsqueeze(scaled(ops.sin(angles), factor), int64(1))

    def __call__(self, states: Node) -> Node:
        """Rotate the first numbers of each head of [B, heads, T, head size].

        Neighbours are brought apart into halves first, and stay there: queries and keys are
        permuted alike, so their products don't change.
        """
        width = size(states, 3)
        if self._neighbours:
            order = [*range(0, self._size, 2), *range(1, self._size, 2), *range(self._size, width)]
            states = ops.gather(states, int64(order), int64(3))
        if self._size == width:
            return self._turn(states)
        turned, kept = split(states, [self._size, width - self._size], axis=3)
        return ops.concat([self._turn(turned), kept], -1)

    def _turn(self, states: Node) -> Node:
        """The axes are written as the CPU plugin's fusion expects them: 3 to split, -1 to join."""
        half = self._size // 2
        first, second = split(states, [half, half], axis=3)
        turned = ops.concat([ops.multiply(second, float32(-1)), first], -1)
        return ops.add(ops.multiply(states, self._cos), ops.multiply(turned, self._sin))
