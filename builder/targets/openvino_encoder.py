"""An encoder as an OpenVINO graph, from the tensors of a TensorRT-LLM checkpoint: texts in, one
embedding each out.

Source: TensorRT-LLM's `models/bert/model.py`, and sentence-transformers' `Pooling` for what comes
after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from openvino import Model, Node
from openvino import opset15 as ops

from builder.encoder import Encoder
from builder.safetensors_file import StoredTensor
from builder.targets.openvino_graph import number
from builder.targets.openvino_mlp import MultilayerPerceptron
from builder.targets.openvino_nodes import float32, heads_first, int64, parameter, split
from builder.targets.openvino_norm import Norm
from builder.targets.openvino_weights import Weights

_SMALLEST_LENGTH = 1e-12
"""An embedding's before it is made 1, as torch's `normalize` has it."""


def build_encoder(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Model:
    """The graph of an encoder with its pooling.

    Inputs: `input_ids` int32[B, T], of which row b's first `input_lengths[b]` count, and
    `input_lengths` int32[B], each at least 1. Output: `embedding` float32[B, hidden size]. What is
    behind a text's end is of no consequence, so texts of any length share a call. `tensors` must
    outlive the model.
    """
    return _Encoder(config, tensors).model()


class _Encoder:
    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
        self.config, self.said = config, Encoder.of(config)
        self.weights = Weights(config, tensors)
        self.norm = Norm(config, self.weights)
        self.mlp = MultilayerPerceptron(config, self.weights)
        self.ids = parameter("input_ids", np.int32, 2)
        self.lengths = parameter("input_lengths", np.int32, 1)
        length = ops.gather(ops.shape_of(self.ids), int64(1), int64(0))
        self.places = ops.range(int64(0), length, int64(1), "i64")
        ends = ops.unsqueeze(ops.convert(self.lengths, np.int64), int64(1))
        self.counts = ops.less(ops.unsqueeze(self.places, int64(0)), ends)

    def model(self) -> Model:
        hidden = self.embedded()
        seen = ops.unsqueeze(self.counts, int64([1, 2]))
        mask = ops.select(seen, float32(0), float32(np.finfo(np.float32).min))
        for layer in range(self.config["num_hidden_layers"]):
            hidden = self.layer(hidden, mask, f"layers.{layer}")
        result = ops.result(self.normalised(self.pooled(hidden)))
        result.get_output_tensor(0).set_names({"embedding"})
        model = Model([result], [self.ids, self.lengths], self.config["architecture"])
        number(model)
        return model

    def embedded(self) -> Node:
        """The tokens with their positions, all of the first segment, [B, T, hidden size]."""
        table = {
            name: self.weights.float32(f"embedding.{name}_embedding.weight")
            for name in ("vocab", "position", "token")
        }
        positions = ops.add(self.places, int64(self.said.first_position))
        hidden = ops.gather(table["vocab"], self.ids, int64(0))
        hidden = ops.add(hidden, ops.gather(table["position"], positions, int64(0)))
        hidden = ops.add(hidden, ops.gather(table["token"], int64(0), int64(0)))
        return self.norm(hidden, "embedding.embedding_ln")

    def layer(self, hidden: Node, mask: Node, prefix: str) -> Node:
        """Attention and MLP, each with its norm after it."""
        attended = self.attended(hidden, mask, f"{prefix}.attention")
        hidden = self.norm(ops.add(hidden, attended), f"{prefix}.input_layernorm")
        fed = self.mlp(hidden, f"{prefix}.mlp")
        return self.norm(ops.add(hidden, fed), f"{prefix}.post_layernorm")

    def attended(self, hidden: Node, mask: Node, prefix: str) -> Node:
        heads, head_size = self.config["num_attention_heads"], self.config["head_size"]
        width = heads * head_size
        parts = split(self.weights.linear(hidden, f"{prefix}.qkv"), [width] * 3, axis=2)
        query, key, value = (
            heads_first(ops.reshape(part, int64([0, 0, heads, head_size]), True)) for part in parts
        )
        context = ops.scaled_dot_product_attention(query, key, value, mask)
        context = ops.reshape(heads_first(context), int64([0, 0, width]), True)
        return self.weights.linear(context, f"{prefix}.dense")

    def pooled(self, hidden: Node) -> Node:
        """One state for each text, [B, hidden size]."""
        if self.said.pooling == "cls":
            return ops.gather(hidden, int64(0), int64(1))
        counts = ops.unsqueeze(self.counts, int64(2))
        if self.said.pooling == "max":
            hidden = ops.select(counts, hidden, float32(np.finfo(np.float32).min))
            return ops.reduce_max(hidden, int64(1), False)
        total = ops.reduce_sum(ops.select(counts, hidden, float32(0)), int64(1), False)
        lengths = ops.convert(self.lengths, np.float32)
        return ops.divide(total, ops.unsqueeze(lengths, int64(1)))

    def normalised(self, pooled: Node) -> Node:
        """With a length of 1, where the model has it so."""
        if not self.said.normalize:
            return pooled
        length = ops.sqrt(ops.reduce_sum(ops.multiply(pooled, pooled), int64(1), True))
        return ops.divide(pooled, ops.maximum(length, float32(_SMALLEST_LENGTH)))
