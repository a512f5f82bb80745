"""What an engine is built for: batch, sequence, token and KV-cache limits, and their memory.

One place decides the limits; targets write them into the engine's `config.json` and the executor
allocates by them. What a GPU's memory allows is in `builder.memory`, by the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.encoder import Encoder, is_encoder
from builder.errors import LimitError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "int8": 1}
CACHE_DTYPES = {"FP8": "float8_e4m3fn", "INT8": "int8"}
"""`kv_cache_quant_algo` → what keys and values are kept in on a GPU."""
TOKENS_PER_BLOCK = 32
"""KV-cache block length, in tokens: TensorRT-LLM's default since 1.0, and OpenVINO's on x86."""
INT32_MAX = 2**31 - 1
"""TensorRT-LLM and Triton's configs keep limits as int32."""
KV_FRACTION = 0.9
"""What TensorRT-LLM takes of the memory that is free once the engine is loaded, for the cache."""
LIMITS = ("max_batch_size", "max_seq_len", "max_input_len", "max_num_tokens", "max_beam_width")
"""What an engine is built for, as manifests have it."""


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """What the user asked for; None is chosen from the model."""

    max_batch_size: int = 64
    max_seq_len: int | None = None
    max_num_tokens: int = 512
    kv_cache_gib: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the engine holds.

    `max_seq_len_tokens` counts prompt and answer together; `max_num_tokens` is the most that one
    step computes; `kv_cache_blocks` blocks of TOKENS_PER_BLOCK tokens are allocated.
    """

    max_batch_size: int
    max_seq_len_tokens: int
    max_num_tokens: int
    kv_cache_blocks: int
    kv_bytes_per_token: int

    @property
    def kv_cache_tokens(self) -> int:
        """How many tokens the cache holds over all sequences."""
        return self.kv_cache_blocks * TOKENS_PER_BLOCK

    @property
    def kv_cache_bytes(self) -> int:
        """What the cache takes when every block is used."""
        return self.kv_cache_tokens * self.kv_bytes_per_token


def kv_bytes_per_token(config: Mapping[str, Any], *, cache_dtype: str | None = None) -> int:
    """Bytes of keys and values that one token leaves in a rank's cache, over the rank's layers.

    `config` is a TensorRT-LLM checkpoint's with its `mapping`; of pipeline ranks, one with the
    most layers is meant. Every layer counts, also one that forgets what slid out of its window:
    see `kv_bytes_of_sequence`. `cache_dtype` is by default that of the checkpoint's
    `kv_cache_quant_algo`, else the model's.
    """
    ranks = int((config.get("mapping") or {}).get("pp_size", 1))
    layers = -(-int(config["num_hidden_layers"]) // ranks)
    return layers * kv_bytes_per_layer(config, cache_dtype=cache_dtype)


def kv_bytes_of_sequence(config: Mapping[str, Any], tokens: int, layers: Iterable[int]) -> int:
    """Bytes that a sequence of so many tokens keeps in the cache of these layers of a rank.

    The cache is taken in blocks of TOKENS_PER_BLOCK; layers with a sliding window keep no more
    than the window (TensorRT-LLM's cyclic KV cache).
    """
    kept = (min(tokens, window_tokens(config, layer) or tokens) for layer in layers)
    blocks = sum(map(_blocks, kept))
    return blocks * TOKENS_PER_BLOCK * kv_bytes_per_layer(config)


def window_tokens(config: Mapping[str, Any], layer: int) -> int:
    """How many tokens up to its own a layer attends to, and keeps; 0 for all.

    TensorRT-LLM's runtime default `max_attention_window` is a list, repeated over the layers. A
    checkpoint without it slides by `sliding_window`: Gemma 3 except in every
    `_sliding_window_pattern`-th layer, others everywhere.
    """
    defaults = (config.get("runtime_defaults") or {}).get("kv_cache_config") or {}
    window = int(config.get("sliding_window") or 0)
    if windows := defaults.get("max_attention_window"):
        window = int(windows[layer % len(windows)])
    elif pattern := config.get("_sliding_window_pattern"):
        window *= bool((layer + 1) % pattern)
    return window if window < config["max_position_embeddings"] else 0


def kv_bytes_per_layer(config: Mapping[str, Any], *, cache_dtype: str | None = None) -> int:
    """Bytes of one token's keys and values in one layer of a rank.

    Tensor ranks that outnumber the key-value heads repeat them. Context-parallel ranks are taken
    to keep all of a sequence.
    """
    algo = str((config.get("quantization") or {}).get("kv_cache_quant_algo"))
    size_bytes = DTYPE_BYTES[cache_dtype or CACHE_DTYPES.get(algo, config["dtype"])]
    ranks = (config.get("mapping") or {}).get("tp_size", 1)
    heads = max(1, int(config["num_key_value_heads"]) // int(ranks))
    return 2 * heads * int(config["head_size"]) * size_bytes


def plan(config: Mapping[str, Any], options: LimitOptions) -> Limits:
    """The limits for a checkpoint's `config`. Raises LimitError for what can't hold.

    An encoder keeps nothing from one call to the next: it has no KV cache.
    """
    if is_encoder(config.get("architecture")):
        return _of_encoder(config, options)
    wanted = options.max_seq_len
    if wanted is None:
        wanted = int(config["max_position_embeddings"])
    check(
        config,
        max_seq_len=wanted,
        max_batch_size=options.max_batch_size,
        max_num_tokens=options.max_num_tokens,
    )
    per_token = kv_bytes_per_token(config, cache_dtype=config["dtype"])
    blocks = _affordable_blocks(options, per_token, options.max_batch_size * _blocks(wanted))
    if blocks < _blocks(wanted):
        need = _blocks(wanted) * TOKENS_PER_BLOCK * per_token / (1 << 30)
        raise LimitError(
            f"one sequence of {wanted} tokens doesn't fit the KV cache",
            found=f"{options.kv_cache_gib:g} GiB where it takes {need:.3g} GiB",
            do="raise --kv-cache-gib or lower --max-seq-len",
        )
    return Limits(
        max_batch_size=options.max_batch_size,
        max_seq_len_tokens=wanted,
        max_num_tokens=options.max_num_tokens,
        kv_cache_blocks=blocks,
        kv_bytes_per_token=per_token,
    )


def _of_encoder(config: Mapping[str, Any], options: LimitOptions) -> Limits:
    """By default as long as the model's own limit; a call always has room for one text."""
    if options.kv_cache_gib != LimitOptions.kv_cache_gib:
        raise LimitError(
            "an encoder has no KV cache",
            found=f"--kv-cache-gib {options.kv_cache_gib:g}",
            do="leave --kv-cache-gib out",
        )
    most = context_tokens(config)
    wanted = options.max_seq_len or min(most, Encoder.of(config).max_seq_len or most)
    step = max(options.max_num_tokens, wanted)
    check(
        config,
        max_seq_len=wanted,
        max_batch_size=options.max_batch_size,
        max_num_tokens=step,
    )
    return Limits(
        max_batch_size=options.max_batch_size,
        max_seq_len_tokens=wanted,
        max_num_tokens=step,
        kv_cache_blocks=0,
        kv_bytes_per_token=0,
    )


def check(
    config: Mapping[str, Any], *, max_seq_len: int, max_batch_size: int, max_num_tokens: int
) -> None:
    """Raise LimitError, naming the flag, for limits that no engine of the model can have."""
    most = context_tokens(config)
    if max_seq_len > most:
        raise LimitError(
            f"--max-seq-len {max_seq_len} is beyond what the model was made for",
            found=f"positions for {most} tokens",
            do=f"ask for at most {most}",
        )
    for flag, value, least in (
        ("--max-seq-len", max_seq_len, 2),
        ("--max-batch-size", max_batch_size, 1),
        ("--max-num-tokens", max_num_tokens, max_batch_size),
    ):
        if value < least:
            raise LimitError(f"{flag} is too small", found=str(value), do=f"at least {least}")
        if value > INT32_MAX:
            raise LimitError(f"{flag} is too large", found=str(value), do=f"at most {INT32_MAX}")


def context_tokens(config: Mapping[str, Any]) -> int:
    """The longest sequence that the model's positions reach.

    That is `max_position_embeddings`, times the factor of a linear or YaRN scaling where that
    isn't in it yet, as TensorRT-LLM 1.2's `builder.py` has it; an encoder's first positions may
    stand for no token.
    """
    if is_encoder(config.get("architecture")):
        return int(config["max_position_embeddings"]) - Encoder.of(config).first_position
    trained, scaling = int(config["max_position_embeddings"]), config.get("rotary_scaling") or {}
    if scaling.get("rope_type", scaling.get("type")) not in ("linear", "yarn"):
        return trained
    original = scaling.get("original_max_position_embeddings") or trained
    return max(trained, int(original * float(scaling.get("factor") or 1)))


def _affordable_blocks(options: LimitOptions, per_token: int, useful: int) -> int:
    """How many blocks the user's memory holds, but no more than can ever be used."""
    if not options.kv_cache_gib > 0:
        raise LimitError(
            "--kv-cache-gib must be a positive number", found=f"{options.kv_cache_gib:g}"
        )
    block_bytes = per_token * TOKENS_PER_BLOCK
    return int(min(options.kv_cache_gib * (1 << 30), useful * block_bytes) // block_bytes)


def _blocks(tokens: int) -> int:
    return -(-tokens // TOKENS_PER_BLOCK)
