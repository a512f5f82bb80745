"""What an engine is built for: batch, sequence, token and KV-cache limits, and their memory.

One place decides the limits; targets write them into the engine's `config.json` and the executor
allocates by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import LimitError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TOKENS_PER_BLOCK = 32
"""KV-cache block length, in tokens: TensorRT-LLM's default since 1.0, and OpenVINO's on x86."""
INT32_MAX = 2**31 - 1
"""TensorRT-LLM and Triton's configs keep limits as int32."""


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


def kv_bytes_per_token(config: Mapping[str, Any]) -> int:
    """Bytes of keys and values that one token leaves in the cache, over all layers.

    `config` is a TensorRT-LLM checkpoint's; the cache is kept in the model's dtype.
    """
    heads = config["num_hidden_layers"] * config["num_key_value_heads"]
    return 2 * int(heads * config["head_size"] * DTYPE_BYTES[config["dtype"]])


def plan(config: Mapping[str, Any], options: LimitOptions) -> Limits:
    """The limits for a checkpoint's `config`. Raises LimitError for what can't hold."""
    trained = int(config["max_position_embeddings"])
    wanted = options.max_seq_len if options.max_seq_len is not None else trained
    if wanted > trained:
        raise LimitError(
            f"--max-seq-len {wanted} is beyond what the model was made for",
            found=f"max_position_embeddings {trained}",
            do=f"ask for at most {trained}",
        )
    for flag, value, least in (
        ("--max-seq-len", wanted, 2),
        ("--max-batch-size", options.max_batch_size, 1),
        ("--max-num-tokens", options.max_num_tokens, options.max_batch_size),
    ):
        if value < least:
            raise LimitError(f"{flag} is too small", found=str(value), do=f"at least {least}")
        if value > INT32_MAX:
            raise LimitError(f"{flag} is too large", found=str(value), do=f"at most {INT32_MAX}")
    per_token = kv_bytes_per_token(config)
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
