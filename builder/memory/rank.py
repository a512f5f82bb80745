"""What one rank's GPU memory goes to, and how many tokens its KV cache then holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builder.errors import LimitError
from builder.gpus import Gpu
from builder.limits import KV_FRACTION, TOKENS_PER_BLOCK, kv_bytes_of_sequence, kv_bytes_per_layer
from builder.mapping import Layout
from builder.memory.activations import activation_bytes, runtime_bytes
from builder.memory.weights import Weights, weights_of_ranks

Config = Mapping[str, Any]

_TENSOR_RANKS = (2, 4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What an engine is built for: requests, tokens of a step, tokens of a sequence, beams.

    `kv_fraction` is the cache's part of what is free once the engine is loaded.
    """

    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    max_beam_width: int = 1
    kv_fraction: float = KV_FRACTION


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """What one rank's GPU memory goes to, in bytes.

    `kv_bytes_per_token` is what a token takes over all of the rank's layers. `kv_cache_bytes` is
    what the executor allocates for keys and values, and `kv_cache_tokens` how many tokens of
    sequences of the engine's length it holds: more than the quotient where layers forget.
    """

    weights_bytes: int
    activation_bytes: int
    runtime_bytes: int
    kv_bytes_per_token: int
    kv_cache_bytes: int
    kv_cache_tokens: int
    gpu_bytes: int

    @property
    def taken_bytes(self) -> int:
        """What is gone before there is a cache."""
        return self.weights_bytes + self.activation_bytes + self.runtime_bytes


def rank_memory(
    config: Config,
    *,
    gpu: Gpu,
    max_batch_size: int,
    max_num_tokens: int,
    max_seq_len: int,
    max_beam_width: int = 1,
    kv_fraction: float = KV_FRACTION,
) -> RankMemory:
    """The memory of the rank that holds the fewest tokens, which limits them all.

    `config` is a checkpoint's config.json, with its mapping and quantization. Raises LimitError
    when the weights, or one sequence of `max_seq_len` tokens, don't fit, with what would.
    """
    load = Load(
        max_batch_size=max_batch_size,
        max_num_tokens=max_num_tokens,
        max_seq_len=max_seq_len,
        max_beam_width=max_beam_width,
        kv_fraction=kv_fraction,
    )
    found = fullest_rank(config, gpu, load)
    if not holds_a_sequence(found, load):
        raise _too_large(config, gpu, load, found)
    return found


def fullest_rank(
    config: Config, gpu: Gpu, load: Load, weights: Sequence[Weights] | None = None
) -> RankMemory:
    """The same, refusing nothing that is too large: its cache holds nothing, or too little.

    `weights` are `weights_of_ranks(config)`, where they are known already. Raises LimitError for a
    GPU whose memory isn't known, and for a layout that can't be.
    """
    size = memory_bytes(gpu)
    memory = [
        _rank(config, size, load, pp_rank, own.total_bytes)
        for pp_rank, own in enumerate(weights or weights_of_ranks(config))
    ]
    return min(memory, key=lambda rank: (rank.kv_cache_tokens, -rank.taken_bytes))


def memory_bytes(gpu: Gpu) -> int:
    """All of a GPU's memory. Raises LimitError where it isn't known."""
    if gpu.memory_bytes is None:
        raise LimitError(
            f"how much memory {gpu.name} has isn't known here",
            do="name a GPU with its memory, such as H100-80GB, A100-40GB or L40S",
        )
    return gpu.memory_bytes


def holds_a_sequence(found: RankMemory, load: Load) -> bool:
    """Whether the longest sequence fits the cache."""
    return found.kv_cache_tokens >= load.max_seq_len * load.max_beam_width


def _rank(
    config: Config, gpu_bytes: int, load: Load, pp_rank: int, weights_bytes: int
) -> RankMemory:
    layout = Layout.of_config(config)
    layers = layout.layers(pp_rank, config["num_hidden_layers"])
    activations = activation_bytes(
        config,
        max_num_tokens=load.max_num_tokens,
        max_batch_size=load.max_batch_size,
        max_beam_width=load.max_beam_width,
    )
    runtime = runtime_bytes(layout.world_size)
    left = max(0, gpu_bytes - weights_bytes - activations - runtime)
    cache = int(left * load.kv_fraction)
    length = -(-load.max_seq_len // TOKENS_PER_BLOCK) * TOKENS_PER_BLOCK
    tokens = cache * length // kv_bytes_of_sequence(config, length, layers)
    return RankMemory(
        weights_bytes=weights_bytes,
        activation_bytes=activations,
        runtime_bytes=runtime,
        kv_bytes_per_token=len(layers) * kv_bytes_per_layer(config),
        kv_cache_bytes=cache,
        kv_cache_tokens=tokens - tokens % TOKENS_PER_BLOCK,
        gpu_bytes=gpu_bytes,
    )


def _too_large(config: Config, gpu: Gpu, load: Load, found: RankMemory) -> LimitError:
    others = [_more_ranks(config, gpu, load), "quantize it or its KV cache"]
    if found.kv_cache_tokens < TOKENS_PER_BLOCK:
        return LimitError(
            f"the model doesn't fit {gpu.name}",
            found=f"{gib(found.weights_bytes)} of weights, {gib(found.activation_bytes)} of"
            f" activations for {load.max_num_tokens} tokens, {gib(found.runtime_bytes)} for the"
            f" runtime, of {gib(found.gpu_bytes)}",
            do=" or ".join(filter(None, others)),
        )
    longest = found.kv_cache_tokens // load.max_beam_width
    return LimitError(
        f"one sequence of {load.max_seq_len} tokens doesn't fit the KV cache on {gpu.name}",
        found=f"room for {found.kv_cache_tokens} tokens in {gib(found.kv_cache_bytes)}, after"
        f" {gib(found.weights_bytes)} of weights and {gib(found.activation_bytes)} of activations",
        do=" or ".join(filter(None, [f"ask for --max-seq-len {longest}", *others])),
    )


def _more_ranks(config: Config, gpu: Gpu, load: Load) -> str | None:
    """How few tensor ranks would be enough."""
    layout = Layout.of_config(config)
    for ranks in (ranks for ranks in _TENSOR_RANKS if ranks > layout.tp):
        divided = replace(layout, tp=ranks, moe_ep=1)
        try:
            found = fullest_rank({**config, "mapping": divided.mapping()}, gpu, load)
        except LimitError:
            continue
        if holds_a_sequence(found, load):
            return f"divide it with --tp {ranks}"
    return None


def gib(size_bytes: float) -> str:
    """Bytes as people read them."""
    return f"{size_bytes / (1 << 30):.1f} GiB"
