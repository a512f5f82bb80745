"""Attention over cached keys and values.

It is scaled-dot-product attention over stateful keys and values: the form that OpenVINO's
paged-attention transformation recognises when the executor loads the engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import openvino as ov
from openvino import Node
from openvino import opset15 as ops
from openvino.op.util import Variable, VariableInfo

from builder.targets.openvino_masks import Masks
from builder.targets.openvino_nodes import Inputs, float32, heads_first, int64, size, split
from builder.targets.openvino_norm import Norm
from builder.targets.openvino_rotary import HALVES, NEIGHBOURS, Rotary
from builder.targets.openvino_weights import Weights


class KeyValueCache:
    """Keys and values of earlier steps, as the model's state; `sinks` write them back."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self.sinks: list[Node] = []

    def append(self, states: Node, layer: int, kind: str) -> Node:
        """The states of earlier steps, followed by these [B, heads, T, size]."""
        heads, width = size(states, 1), size(states, 3)
        info = VariableInfo()
        info.data_shape, info.data_type = ov.PartialShape([-1, heads, -1, width]), ov.Type.f32
        info.variable_id = f"past_key_values.{layer}.{kind}present.{layer}.{kind}"
        variable = Variable(info)
        batch = ops.gather(ops.shape_of(self._inputs.input_ids), int64([0]), int64(0))
        empty = ops.broadcast(float32(0), ops.concat([batch, int64([heads, 0, width])], 0))
        past = ops.gather(ops.read_value(empty, variable), self._inputs.beam_idx, int64(0))
        present = ops.concat([past, states], 2)
        self.sinks.append(ops.assign(present, variable))
        return present


class Attention:
    """Multi-head attention with fused q, k and v, and fewer key than query heads where asked."""

    def __init__(
        self, config: Mapping[str, Any], weights: Weights, norm: Norm, inputs: Inputs
    ) -> None:
        self._config, self._weights, self._norm = config, weights, norm
        self._heads = (config["num_attention_heads"], *[config["num_key_value_heads"]] * 2)
        self._scale = attention_scale(config)
        self._masks, self._cache = Masks(config, inputs), KeyValueCache(inputs)
        self._rotary = self._local_rotary = None
        if config.get("position_embedding_type") in HALVES + NEIGHBOURS:
            self._rotary = Rotary(config, inputs.position_ids)
            if local_base := config.get("rope_local_base_freq"):
                self._local_rotary = Rotary(config, inputs.position_ids, base=local_base)

    @property
    def sinks(self) -> list[Node]:
        """What writes the keys and values back."""
        return self._cache.sinks

    def __call__(self, hidden: Node, layer: int) -> Node:
        """[B, T, hidden size] → the same shape."""
        prefix = f"transformer.layers.{layer}.attention"
        query, key, value = self._projections(hidden, prefix)
        if f"{prefix}.q_layernorm.weight" in self._weights:
            query = self._norm(query, f"{prefix}.q_layernorm")
            key = self._norm(key, f"{prefix}.k_layernorm")
        query, key, value = (heads_first(states) for states in (query, key, value))
        if rotary := self._local_rotary if self._is_local(layer) else self._rotary:
            query, key = rotary(query), rotary(key)
        key = self._cache.append(key, layer, "key")
        value = self._cache.append(value, layer, "value")
        mixed = attend(query, key, value, self._masks.of(layer), self._scale)
        return self._weights.linear(mixed, f"{prefix}.dense")

    def _projections(self, hidden: Node, prefix: str) -> list[Node]:
        """Query, key and value, [B, T, heads, head size]."""
        head_size = self._config["head_size"]
        fused = self._weights.linear(hidden, f"{prefix}.qkv")
        if bound := self._config.get("clip_qkv"):
            fused = ops.clamp(fused, -bound, bound)
        parts = split(fused, [heads * head_size for heads in self._heads], axis=2)
        return [
            ops.reshape(part, int64([0, 0, heads, head_size]), True)
            for part, heads in zip(parts, self._heads, strict=True)
        ]

    def _is_local(self, layer: int) -> bool:
        """Whether a layer of Gemma 3 rotates by `rope_local_base_freq`."""
        return bool(
            self._local_rotary and (layer + 1) % int(self._config["_sliding_window_pattern"])
        )


def attention_scale(config: Mapping[str, Any]) -> float:
    """The factor of the products of queries and keys: by default one over a head's norm."""
    if config.get("query_pre_attn_scalar"):
        return float(config["query_pre_attn_scalar"] ** -0.5)
    multiplier = config.get("attention_multiplier") or 1.0
    return float(multiplier / (config.get("q_scaling") or 1.0) / math.sqrt(config["head_size"]))


def attend(query: Node, key: Node, value: Node, mask: Node, scale: float) -> Node:
    """Attention of query heads [B, heads, T, size] over [B, key heads, L, size] → [B, T, …]."""
    heads, width = size(query, 1), size(value, 3)
    key, value = _repeated(key, heads), _repeated(value, heads)
    mixed = ops.scaled_dot_product_attention(query, key, value, mask, float32(scale), False)
    return ops.reshape(heads_first(mixed), int64([0, 0, heads * width]), True)


def _repeated(states: Node, heads: int) -> Node:
    """Each key or value head once for every query head that shares it."""
    groups = heads // size(states, 1)
    if groups == 1:
        return states
    times = int64([1, 1, groups, 1, 1])
    wide = ops.broadcast(ops.unsqueeze(states, int64(2)), times, broadcast_spec="BIDIRECTIONAL")
    return ops.reshape(wide, int64([0, heads, -1, size(states, 3)]), True)
