"""The decoder as an OpenVINO graph, built from the tensors of a TensorRT-LLM checkpoint.

One graph for all families: a checkpoint's config and the tensors that it holds say what a layer
is made of.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from openvino import Model, Node
from openvino import opset15 as ops

from builder.safetensors_file import StoredTensor
from builder.targets.openvino_attention import Attention
from builder.targets.openvino_experts import Experts
from builder.targets.openvino_lora import Adapters
from builder.targets.openvino_mlp import MultilayerPerceptron
from builder.targets.openvino_nodes import Inputs, int64, scaled
from builder.targets.openvino_norm import Norm
from builder.targets.openvino_scratch import Scratch
from builder.targets.openvino_weights import Weights

Config = Mapping[str, Any]
Tensors = Mapping[str, StoredTensor]

_EMBEDDING = "transformer.vocab_embedding"
_POSITIONS = "transformer.position_embedding"
_GEMMA = ("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM")


def build_graph(
    config: Config,
    tensors: Tensors,
    *,
    exact: bool = False,
    scratch: Scratch | None = None,
    adapted: Collection[str] = (),
) -> Model:
    """The graph of a decoder.

    Inputs: `input_ids` int64[B, T], `attention_mask` int64[B, L], `position_ids` int64[B, T],
    `beam_idx` int32[B], `logits_indices` int64[S]. Output: `logits` float32[S, vocab]. The rows
    are taken along the first axis, which after the paged-attention transformation counts tokens.
    Weights stay in their stored form, and where they are: `tensors` must outlive the model, and so
    must `scratch`, which holds the codes that are computed. The arithmetic's precision is chosen
    when compiling.

    `exact` computes a quantized checkpoint as it says it is, rounding what a GPU rounds, in float32
    only; without it, FP8 inputs are left at the arithmetic's precision.

    `adapted` are linears of a layer (`attention.qkv`, …) that take LoRA adapters: the inputs for
    them are those of `openvino_lora.Adapters`.
    """
    adapters = Adapters(adapted)
    weights = Weights(config, tensors, exact=exact, scratch=scratch, adapters=adapters)
    return _Decoder(config, weights).model(adapters)


class _Decoder:
    def __init__(self, config: Config, weights: Weights) -> None:
        self.config, self.weights, self.inputs = config, weights, Inputs()
        self.norm = Norm(config, weights)
        self.mlp, self.experts = MultilayerPerceptron(config, weights), Experts(config, weights)
        self.attention = Attention(config, weights, self.norm, self.inputs)

    def model(self, adapters: Adapters) -> Model:
        embedding = self.weights.float32(f"{_EMBEDDING}.weight")
        hidden = self.embedded(embedding)
        for layer in range(self.config["num_hidden_layers"]):
            hidden = self.layer(hidden, layer)
        hidden = ops.gather(hidden, self.inputs.logits_indices, int64(0))
        if "transformer.ln_f.weight" in self.weights:
            hidden = self.norm(hidden, "transformer.ln_f")
        logits = ops.result(ops.squeeze(self.logits(hidden, embedding), int64(1)))
        logits.get_output_tensor(0).set_names({"logits"})
        sinks, name = self.attention.sinks, self.config["architecture"]
        model = Model([logits], sinks, [*self.inputs.all(), *adapters.parameters], name)
        number(model)
        return model

    def embedded(self, embedding: Node) -> Node:
        """The tokens' embeddings, [B, T, hidden size]."""
        hidden = ops.gather(embedding, self.inputs.input_ids, int64(0))
        hidden = scaled(hidden, embedding_scale(self.config))
        if f"{_POSITIONS}.weight" in self.weights:
            positions = self.weights.float32(f"{_POSITIONS}.weight")
            hidden = ops.add(hidden, ops.gather(positions, self.inputs.position_ids, int64(0)))
        if "transformer.ln_embed.weight" in self.weights:
            hidden = self.norm(hidden, "transformer.ln_embed")
        return hidden

    def layer(self, hidden: Node, index: int) -> Node:
        """Attention and MLP, in the order that the layer's norms tell."""
        prefix = f"transformer.layers.{index}"
        if not self.config.get("do_layer_norm_before", True):
            hidden = ops.add(hidden, self.attention(hidden, index))
            hidden = self.norm(hidden, f"{prefix}.input_layernorm")
            hidden = ops.add(hidden, self.feed_forward(hidden, prefix))
            return self.norm(hidden, f"{prefix}.post_layernorm")
        normed = self.norm(hidden, f"{prefix}.input_layernorm")
        attended = self.attention(normed, index)
        if f"{prefix}.post_feedforward_layernorm.weight" in self.weights:
            return self.sandwich(hidden, attended, prefix)
        if f"{prefix}.post_layernorm.weight" in self.weights:
            multiplier = self.config.get("residual_multiplier") or 1.0
            hidden = ops.add(hidden, scaled(attended, multiplier))
            normed = self.norm(hidden, f"{prefix}.post_layernorm")
            return ops.add(hidden, scaled(self.feed_forward(normed, prefix), multiplier))
        return self.parallel(hidden, normed, attended, prefix)

    def sandwich(self, hidden: Node, attended: Node, prefix: str) -> Node:
        """Gemma 2 and 3: what attention and MLP give is normalised before it is added."""
        hidden = ops.add(hidden, self.norm(attended, f"{prefix}.post_layernorm"))
        normed = self.norm(hidden, f"{prefix}.pre_feedforward_layernorm")
        fed = self.feed_forward(normed, prefix)
        return ops.add(hidden, self.norm(fed, f"{prefix}.post_feedforward_layernorm"))

    def parallel(self, hidden: Node, normed: Node, attended: Node, prefix: str) -> Node:
        """The MLP beside attention, on a norm of its own (Falcon, GPT-NeoX) or on the same."""
        for name in ("mlp_layernorm", "post_attention_layernorm"):
            if f"{prefix}.{name}.weight" in self.weights:
                normed = self.norm(hidden, f"{prefix}.{name}")
        return ops.add(hidden, ops.add(attended, self.feed_forward(normed, prefix)))

    def feed_forward(self, hidden: Node, prefix: str) -> Node:
        """The layer's experts or its MLP."""
        routed = f"{prefix}.mlp.router.weight" in self.weights
        return (self.experts if routed else self.mlp)(hidden, f"{prefix}.mlp")

    def logits(self, hidden: Node, embedding: Node) -> Node:
        """Scores of the vocabulary; a head that is the embedding is stored once."""
        stored = "lm_head.weight" in self.weights
        if stored and not self.weights.equal("lm_head.weight", f"{_EMBEDDING}.weight"):
            scores = self.weights.linear(hidden, "lm_head")
        else:
            scores = ops.matmul(hidden, embedding, False, True)
            if "lm_head.bias" in self.weights:
                scores = ops.add(scores, self.weights.float32("lm_head.bias"))
        scores = scaled(scores, self.config.get("output_multiplier_scale") or 1.0)
        if cap := self.config.get("final_logit_softcapping"):
            scores = scaled(ops.tanh(scaled(scores, 1 / cap)), cap)
        return scores


def embedding_scale(config: Config) -> float:
    """The factor of the embeddings: Gemma's is in its class, others' in the config."""
    if config["architecture"] in _GEMMA:
        return math.sqrt(config["hidden_size"])
    return float(config.get("embedding_multiplier") or config.get("embedding_scale") or 1.0)


def number(model: Model) -> None:
    """Name the operations by their place, not by a count of all that the process has made."""
    for index, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
