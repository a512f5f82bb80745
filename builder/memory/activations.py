"""What a rank needs besides weights and KV cache: activations, logits, and what the runtime takes.

These are upper estimates, not measured here. TensorRT reserves, at build time, what the largest
step needs at its fullest moment (TensorRT-LLM 1.2, `docs/source/legacy/reference/memory.md`):
tensors of one layer, for layers reuse the memory of those before. How well it packs them isn't
documented, so the tensors of a layer that can be alive together are counted whole. NVIDIA's own
fit of measurements (aiconfigurator, `trtllm_backend.py`: Llamas need 11, 6.5 and 5 times tokens
times hidden size at 1, 2, and 4 or more tensor ranks) lies below this for every model of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.dtypes import NUMPY

Config = Mapping[str, Any]

CONTEXT_BYTES = 1340 << 20
"""CUDA context, libraries, cuBLAS and TensorRT workspaces, decoder: what a rank takes beyond its
engine. From the log in memory.md, an H100 of 81559 MiB: 70.48 GiB are available for the cache
after an engine of 6695 MiB with 1134 MiB of activations and 224 MB of buffers, so 1296 MiB are
gone; some more for newer drivers."""

NCCL_BYTES = {1: 0, 2: 342 << 20, 4: 392 << 20}
"""NCCL's buffers by ranks, at least so many (aiconfigurator's `nccl_mem`, from NCCL 2.22 on)."""

LEAST_BYTES = 70 << 20
"""The smallest activation memory of an engine (aiconfigurator)."""

RESIDUALS = 4
"""Tensors as wide as the model that live at once: the residual stream, the normed input, a
layer's output, and its copy in the all-reduce."""

LOGITS_BYTES = 14
"""For a sequence and a word: the head's output in 16 bits, in float32, the decoder's copy of it,
and the sampling's workspace."""


def activation_bytes(
    config: Config, *, max_num_tokens: int, max_batch_size: int, max_beam_width: int = 1
) -> int:
    """An upper estimate of a rank's activations, logits and constants, in bytes.

    tokens * itemsize * (4 * hidden + the widest of a layer's inner parts), where the inner parts
    are the attention's (q, k and v, q again for the paged context kernel, the output) or the
    MLP's (both projections and their product), divided over the tensor ranks; of a mixture, for
    each of the `top_k` experts of a token, with its input and output gathered. To this come
    LOGITS_BYTES * batch * beams * vocabulary, and the rotary embedding's table, float32
    [max_position_embeddings, head size].
    """
    itemsize = max(2, NUMPY[config["dtype"]].itemsize)
    width = RESIDUALS * config["hidden_size"] + max(_attention_width(config), _mlp_width(config))
    rows = max_batch_size * max_beam_width
    tokens = max(max_num_tokens, rows) * itemsize * width
    logits = LOGITS_BYTES * rows * int(config["vocab_size"])
    rotary = 4 * int(config["max_position_embeddings"]) * int(config["head_size"])
    return int(max(LEAST_BYTES, tokens)) + logits + rotary


def runtime_bytes(world_size: int) -> int:
    """What the CUDA context, libraries and NCCL take on each of so many GPUs."""
    fitting = [size for ranks, size in NCCL_BYTES.items() if ranks <= world_size]
    return CONTEXT_BYTES + max(fitting)


def _attention_width(config: Config) -> int:
    ranks = _tensor_ranks(config)
    heads = config["num_attention_heads"] / ranks
    kv_heads = max(1, config["num_key_value_heads"] / ranks)
    return int(config["head_size"] * (3 * heads + 2 * kv_heads))


def _mlp_width(config: Config) -> int:
    moe = config.get("moe") or {}
    shared = int(moe.get("shared_expert_intermediate_size") or 0)
    if not moe.get("num_experts"):
        return 3 * int(config["intermediate_size"]) // _tensor_ranks(config)
    # the routed experts of all tokens may lie on one expert-parallel rank
    inner = int(config.get("moe_intermediate_size") or config["intermediate_size"])
    ranks = int((config.get("mapping") or {}).get("moe_tp_size") or _tensor_ranks(config))
    routed = int(moe["top_k"]) * (2 * int(config["hidden_size"]) + 3 * inner // ranks)
    return routed + 3 * shared // _tensor_ranks(config)


def _tensor_ranks(config: Config) -> int:
    return int((config.get("mapping") or {}).get("tp_size", 1))
