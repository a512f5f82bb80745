"""The decoder as an OpenVINO graph, built from the tensors of a TensorRT-LLM checkpoint.

Attention is scaled-dot-product attention over stateful keys and values: the form that OpenVINO's
paged-attention transformation recognises when the executor loads the engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import Model, Node
from openvino import opset15 as ops
from openvino.op.util import Variable, VariableInfo

from builder.safetensors_file import StoredTensor

Config = Mapping[str, Any]
Tensors = Mapping[str, StoredTensor]

LOGITS_INDICES = "logits_indices"
"""Input int64[S]: the rows (token positions in the step) whose logits are wanted."""


def build_graph(config: Config, tensors: Tensors) -> Model:
    """The graph of a Llama-like decoder.

    Inputs: `input_ids` int64[B, T], `attention_mask` int64[B, L], `position_ids` int64[B, T],
    `beam_idx` int32[B], `logits_indices` int64[S]. Output: `logits` float32[S, vocab]. The rows
    are taken along the first axis, which after the paged-attention transformation counts tokens.
    Weights stay in their stored dtype, and where they are: `tensors` must outlive the model. The
    arithmetic's precision is chosen when compiling.
    """
    return _Decoder(config, tensors).model()


class _Decoder:
    def __init__(self, config: Config, tensors: Tensors) -> None:
        self.config, self.tensors = config, tensors
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config["num_key_value_heads"]
        self.head_size: int = config["head_size"]
        self.sinks: list[Node] = []
        self.input_ids = _parameter("input_ids", np.int64, [-1, -1])
        self.attention_mask = _parameter("attention_mask", np.int64, [-1, -1])
        self.position_ids = _parameter("position_ids", np.int64, [-1, -1])
        self.beam_idx = _parameter("beam_idx", np.int32, [-1])
        self.logits_indices = _parameter(LOGITS_INDICES, np.int64, [-1])

    def model(self) -> Model:
        embedding = self.weight("transformer.vocab_embedding.weight")
        hidden = ops.gather(embedding, self.input_ids, _int64(0))
        self.cos, self.sin = self.rotary_tables()
        self.mask = self.causal_mask()
        for layer in range(self.config["num_hidden_layers"]):
            hidden = self.layer(hidden, layer)
        hidden = ops.gather(hidden, self.logits_indices, _int64(0))
        hidden = self.norm(hidden, "transformer.ln_f")
        head = embedding if self.tied() else self.weight("lm_head.weight")
        logits = ops.squeeze(ops.matmul(hidden, head, False, True), _int64(1))
        logits = ops.result(logits)
        logits.get_output_tensor(0).set_names({"logits"})
        parameters = [
            self.input_ids,
            self.attention_mask,
            self.position_ids,
            self.beam_idx,
            self.logits_indices,
        ]
        model = Model([logits], self.sinks, parameters, self.config["architecture"])
        _number(model)
        return model

    def tied(self) -> bool:
        """Whether the head is the embedding: then its bytes are stored once."""
        head = self.tensors.get("lm_head.weight")
        embedding = self.tensors["transformer.vocab_embedding.weight"]
        return head is None or (
            (head.shape, head.dtype) == (embedding.shape, embedding.dtype)
            and head.data() == embedding.data()
        )

    def layer(self, hidden: Node, index: int) -> Node:
        prefix = f"transformer.layers.{index}"
        normed = self.norm(hidden, f"{prefix}.input_layernorm")
        hidden = ops.add(hidden, self.attention(normed, index, f"{prefix}.attention"))
        normed = self.norm(hidden, f"{prefix}.post_layernorm")
        return ops.add(hidden, self.mlp(normed, f"{prefix}.mlp"))

    def mlp(self, hidden: Node, prefix: str) -> Node:
        gated = ops.swish(self.linear(hidden, f"{prefix}.fc"))
        return self.linear(
            ops.multiply(gated, self.linear(hidden, f"{prefix}.gate")), f"{prefix}.proj"
        )

    def attention(self, hidden: Node, index: int, prefix: str) -> Node:
        sizes = [n * self.head_size for n in (self.heads, self.kv_heads, self.kv_heads)]
        qkv = ops.variadic_split(self.linear(hidden, f"{prefix}.qkv"), _int64(2), _int64(sizes))
        query = self.split_heads(qkv.output(0), self.heads)
        key = self.split_heads(qkv.output(1), self.kv_heads)
        if f"{prefix}.q_layernorm.weight" in self.tensors:
            query = self.norm(query, f"{prefix}.q_layernorm")
            key = self.norm(key, f"{prefix}.k_layernorm")
        query, key = (self.rotate(heads_first(x)) for x in (query, key))
        value = heads_first(self.split_heads(qkv.output(2), self.kv_heads))
        key = self.cached(key, f"past_key_values.{index}.keypresent.{index}.key")
        value = self.cached(value, f"past_key_values.{index}.valuepresent.{index}.value")
        scale = ops.constant(np.float32(1 / math.sqrt(self.head_size)))
        mixed = ops.scaled_dot_product_attention(
            query, self.repeat(key), self.repeat(value), self.mask, scale, False
        )
        merged = ops.reshape(heads_first(mixed), _int64([0, 0, self.heads * self.head_size]), True)
        return self.linear(merged, f"{prefix}.dense")

    def split_heads(self, packed: Node, heads: int) -> Node:
        """[B, T, heads * head_size] → [B, T, heads, head_size]."""
        return ops.reshape(packed, _int64([0, 0, heads, self.head_size]), True)

    def repeat(self, states: Node) -> Node:
        """Each key or value head once for every query head that shares it."""
        groups = self.heads // self.kv_heads
        if groups == 1:
            return states
        once = ops.unsqueeze(states, _int64(2))
        wide = ops.broadcast(once, _int64([1, 1, groups, 1, 1]), broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, _int64([0, self.heads, -1, self.head_size]), True)

    def cached(self, states: Node, name: str) -> Node:
        """The states of earlier steps, followed by those of this one; kept for the next."""
        shape = ov.PartialShape([-1, self.kv_heads, -1, self.head_size])
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = shape, ov.Type.f32, name
        variable = Variable(info)
        batch = ops.gather(ops.shape_of(self.input_ids), _int64([0]), _int64(0))
        empty = ops.broadcast(
            ops.constant(np.float32(0)),
            ops.concat([batch, _int64([self.kv_heads]), _int64([0]), _int64([self.head_size])], 0),
        )
        past = ops.gather(ops.read_value(empty, variable), self.beam_idx, _int64(0))
        present = ops.concat([past, states], 2)
        self.sinks.append(ops.assign(present, variable))
        return present

    def rotate(self, states: Node) -> Node:
        """Rotary embedding of [B, heads, T, head_size], the halves of a head paired (GPT-NeoX).

        The axes are written as the CPU plugin's fusion expects them: 3 to split, -1 to join.
        """
        half = self.head_size // 2
        parts = ops.variadic_split(states, _int64(3), _int64([half, half]))
        minus = ops.multiply(parts.output(1), ops.constant(np.float32(-1)))
        turned = ops.concat([minus, parts.output(0)], -1)
        return ops.add(ops.multiply(states, self.cos), ops.multiply(turned, self.sin))

    def rotary_tables(self) -> tuple[Node, Node]:
        """cos and sin of [B, 1, T, head_size]."""
        frequencies = ops.constant(inverse_frequencies(self.config).reshape(1, -1, 1))
        positions = ops.convert(ops.unsqueeze(self.position_ids, _int64(1)), np.float32)
        angles = ops.transpose(ops.matmul(frequencies, positions, False, False), _int64([0, 2, 1]))
        angles = ops.concat([angles, angles], 2)
        cos, sin = (ops.unsqueeze(f(angles), _int64(1)) for f in (ops.cos, ops.sin))
        return cos, sin

    def causal_mask(self) -> Node:
        """Additive float32[B, 1, T, L]: 0 where a key is at or before the query, else lowest."""
        length = ops.gather(ops.shape_of(self.attention_mask), _int64(1), _int64(0))
        keys = ops.range(_int64(0), length, _int64(1), "i64")
        queries = ops.unsqueeze(self.position_ids, _int64([1, 3]))
        lowest = ops.constant(np.finfo(np.float32).min)
        return ops.select(ops.less_equal(keys, queries), ops.constant(np.float32(0)), lowest)

    def norm(self, hidden: Node, prefix: str) -> Node:
        """RMSNorm over the last axis."""
        square = ops.power(hidden, ops.constant(np.float32(2)))
        mean = ops.reduce_mean(square, _int64([-1]), True)
        epsilon = ops.constant(np.float32(self.config["norm_epsilon"]))
        root = ops.sqrt(ops.add(mean, epsilon))
        return ops.multiply(ops.divide(hidden, root), self.weight(f"{prefix}.weight"))

    def linear(self, hidden: Node, prefix: str) -> Node:
        product = ops.matmul(hidden, self.weight(f"{prefix}.weight"), False, True)
        if f"{prefix}.bias" in self.tensors:
            return ops.add(product, self.weight(f"{prefix}.bias"))
        return product

    def weight(self, name: str) -> Node:
        """A weight as float32 for the graph; its bytes stay as stored, where they are mapped."""
        tensor = self.tensors[name]
        raw = np.frombuffer(tensor.data(), np.uint8)
        stored = ov.Tensor(raw, list(tensor.shape), _TYPES[tensor.dtype])
        constant = ops.constant(stored, shared_memory=True)
        constant.set_friendly_name(name)
        return constant if tensor.dtype == "float32" else ops.convert(constant, np.float32)


_TYPES = {"float32": ov.Type.f32, "float16": ov.Type.f16, "bfloat16": ov.Type.bf16}


def heads_first(states: Node) -> Node:
    """Swap the second and third axes: [B, T, heads, size] ↔ [B, heads, T, size]."""
    return ops.transpose(states, _int64([0, 2, 1, 3]))


def inverse_frequencies(config: Mapping[str, Any]) -> NDArray[np.float32]:
    """Rotary frequencies, float32[head_size / 2], with linear or llama3 scaling applied.

    llama3 (Llama 3.1, `rope_type: "llama3"`): wavelengths longer than the original context are
    slowed by `factor`, short ones kept, those between blended linearly in 1/wavelength.
    """
    size = config["head_size"]
    exponents = np.arange(0, size, 2, dtype=np.float64) / size
    frequencies: NDArray[np.float64] = float(config["rotary_base"]) ** -exponents
    scaling = config.get("rotary_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "linear":
        frequencies = frequencies / scaling["factor"]
    elif kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        frequencies = frequencies * (kept + (1 - kept) / scaling["factor"])
    return frequencies.astype(np.float32)


def _number(model: Model) -> None:
    """Name the operations by their place, not by a count of all that the process has made."""
    for index, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{index}")


def _int64(value: int | list[int]) -> Node:
    return ops.constant(np.array(value, dtype=np.int64))


def _parameter(name: str, dtype: type, shape: list[int]) -> Node:
    parameter = ops.parameter(shape, dtype)
    parameter.set_friendly_name(name)
    parameter.get_output_tensor(0).set_names({name})
    return parameter
