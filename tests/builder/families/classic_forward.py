"""What TensorRT-LLM's classes compute, in float64 numpy, on the tensors of a checkpoint's ranks.

Written from what `models/{gpt,gptj,gptneox,falcon,opt,bloom,mpt}/model.py` and `layers/linear.py`
do: what is summed over the ranks, and where a bias is added, is as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from builder.checkpoint import Checkpoint

Floats = Any
_PARALLEL = ("GPTJForCausalLM", "GPTNeoXForCausalLM", "FalconForCausalLM")
_erf = np.vectorize(math.erf)


def logits(checkpoint: Path, ids: list[int]) -> Floats:
    """Float64 [len(ids), vocabulary] of the model in `checkpoint`, whose ranks are all tensor."""
    opened = Checkpoint.open(checkpoint)
    ranks = [
        {name: tensor.numpy().astype(np.float64) for name, tensor in opened.tensors(rank).items()}
        for rank in range(opened.layout.files)
    ]
    return _Model(opened.config, ranks).run(np.array(ids))


class _Model:
    def __init__(self, config: Mapping[str, Any], ranks: list[dict[str, Floats]]) -> None:
        self.config, self.ranks, self.tp = config, ranks, len(ranks)
        self.parallel = config["architecture"] in _PARALLEL and config.get(
            "parallel_attention", True
        )
        # GPT-NeoX's linears sum for themselves.
        self.late = self.parallel and config["architecture"] != "GPTNeoXForCausalLM"

    def run(self, ids: Floats) -> Floats:
        x = self.look_up("transformer.vocab_embedding", ids)
        if self.config["position_embedding_type"] == "learned_absolute":
            x = x + self.look_up("transformer.position_embedding", np.arange(len(ids)))
        if "transformer.ln_embed.weight" in self.ranks[0]:
            x = self.norm("transformer.ln_embed", x)
        for layer in range(self.config["num_hidden_layers"]):
            x = self.layer(f"transformer.layers.{layer}.", x)
        if "transformer.ln_f.weight" in self.ranks[0]:
            x = self.norm("transformer.ln_f", x)
        scores = [
            x @ r["lm_head.weight"].T + r.get("lm_head.bias", np.zeros(1)) for r in self.ranks
        ]
        return np.concatenate(scores, 1)[:, : self.config["vocab_size"]]

    def layer(self, name: str, x: Floats) -> Floats:
        if not self.config.get("do_layer_norm_before", True):
            x = self.norm(name + "input_layernorm", x + self.attention(name, x))
            return self.norm(name + "post_layernorm", x + self.mlp(name, x))
        normed = self.norm(name + "input_layernorm", x)
        attended = self.attention(name, normed)
        if not self.parallel:
            x = x + attended
            return x + self.mlp(name, self.norm(name + "post_layernorm", x))
        for other in ("mlp_layernorm", "post_attention_layernorm"):
            if f"{name}{other}.weight" in self.ranks[0]:
                normed = self.norm(name + other, x)
        return x + attended + self.mlp(name, normed)

    def look_up(self, name: str, ids: Floats) -> Floats:
        if self.config["use_parallel_embedding"]:
            return np.concatenate([rank[f"{name}.weight"] for rank in self.ranks])[ids]
        return self.ranks[0][f"{name}.weight"][ids]

    def norm(self, name: str, x: Floats) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.ranks[0][f"{name}.weight"] + self.ranks[0].get(f"{name}.bias", 0.0)

    def summed(self, name: str, inputs: list[Floats]) -> Floats:
        """A row-parallel linear: its bias is added on each rank where the class sums later."""
        outputs = [x @ rank[f"{name}.weight"].T for x, rank in zip(inputs, self.ranks, strict=True)]
        biases = [rank.get(f"{name}.bias", np.zeros(1)) for rank in self.ranks]
        return sum(outputs) + (sum(biases) if self.late else biases[0])

    def column(self, rank: dict[str, Floats], name: str, x: Floats) -> Floats:
        return x @ rank[f"{name}.weight"].T + rank.get(f"{name}.bias", 0.0)

    def mlp(self, name: str, x: Floats) -> Floats:
        act = _ACTIVATIONS[self.config["hidden_act"]]
        return self.summed(
            name + "mlp.proj", [act(self.column(rank, name + "mlp.fc", x)) for rank in self.ranks]
        )

    def attention(self, name: str, x: Floats) -> Floats:
        heads = self.config["num_attention_heads"] // self.tp
        kv_heads = max(1, self.config["num_key_value_heads"] // self.tp)
        size, length = self.config["head_size"], len(x)
        outputs = []
        for number, rank in enumerate(self.ranks):
            fused = self.column(rank, name + "attention.qkv", x)
            if clip := self.config.get("clip_qkv"):
                fused = fused.clip(-clip, clip)
            fused = fused.reshape(length, heads + 2 * kv_heads, size).transpose(1, 0, 2)
            q, k, v = np.split(fused, [heads, heads + kv_heads])
            q, k = self.rotated(q), self.rotated(k)
            k, v = (np.repeat(each, heads // kv_heads, axis=0) for each in (k, v))
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(size) + self.mask(length)
            scores += self.alibi(number * heads, heads, length)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = scores / scores.sum(-1, keepdims=True) @ v
            outputs.append(mixed.transpose(1, 0, 2).reshape(length, heads * size))
        return self.summed(name + "attention.dense", outputs)

    def mask(self, length: int) -> Floats:
        behind = np.arange(length)[:, None] - np.arange(length)
        window = self.config.get("sliding_window") or length
        return np.where((behind < 0) | (behind >= window), -np.inf, 0.0)

    def alibi(self, first: int, count: int, length: int) -> Floats:
        kind = self.config["position_embedding_type"]
        if not kind.startswith("alibi"):
            return 0.0
        heads, most = self.config["num_attention_heads"], self.config.get("alibi_bias_max", 8)
        power = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-most * (n + 1) / power) for n in range(power)]
        slopes += [2 ** (-most * (2 * n + 1) / (2 * power)) for n in range(heads - power)]
        scale = 1 / math.sqrt(self.config["head_size"]) if kind == "alibi_with_scale" else 1.0
        distance = np.arange(length) - np.arange(length)[:, None]
        return np.array(slopes[first : first + count])[:, None, None] * distance * scale

    def rotated(self, x: Floats) -> Floats:
        kind = self.config["position_embedding_type"]
        if not kind.startswith("rope"):
            return x
        size = self.config["head_size"]
        part = self.config.get("rotary_dim") or int(size * self.config.get("rotary_pct", 1.0))
        base = self.config.get("rotary_emb_base", self.config.get("rotary_base"))
        angles = np.arange(x.shape[1])[:, None] / base ** (np.arange(0, part, 2) / part)
        cos, sin = np.cos(angles), np.sin(angles)
        out = x.copy()
        first, second = slice(0, part // 2), slice(part // 2, part)
        if kind == "rope_gptj":
            first, second = slice(0, part, 2), slice(1, part, 2)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
        return out


def _gelu_tanh(x: Floats) -> Floats:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "squared-relu": lambda x: np.maximum(x, 0) ** 2,
}
"""TensorRT-LLM's own gelu is the tanh form under every name; transformers' isn't."""
