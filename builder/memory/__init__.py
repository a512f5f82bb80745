"""The limits of an engine that a GPU's memory suggests, and the refusal of what can't fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from builder.gpus import Gpu
from builder.limits import KV_FRACTION, check
from builder.memory.rank import (
    Load,
    RankMemory,
    fullest_rank,
    gib,
    holds_a_sequence,
    memory_bytes,
    rank_memory,
)

__all__ = [
    "ChosenLimits",
    "Load",
    "RankMemory",
    "choose_limits",
    "fullest_rank",
    "gib",
    "holds_a_sequence",
    "memory_bytes",
    "rank_memory",
]

Config = Mapping[str, Any]

NUM_TOKENS = (8192, 4096, 2048, 1024, 512)
"""What is tried for the tokens of a step, TensorRT-LLM's own default first."""

ACTIVATION_PART = 0.2
"""Of what the weights leave: more activations than that are paid for in sequences."""

MOST_BATCH_SIZE = 256
"""What is chosen at most: beyond it a sequence more costs logits and wins little."""

USUAL_SEQUENCE_TOKENS = 1024
"""What a sequence in flight is taken to hold, where the batch size is chosen from the memory."""

BATCH_SIZE_WITHOUT_GPU = 64
_Asked = Mapping[str, "int | None"]
_Chosen = dict[str, tuple[int, str]]


class ChosenLimits(NamedTuple):
    """An engine's limits, and why each is what it is, by its name."""

    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    reasons: Mapping[str, str]


def choose_limits(
    config: Config,
    *,
    gpu: Gpu | None,
    max_batch_size: int | None = None,
    max_seq_len: int | None = None,
    max_num_tokens: int | None = None,
    max_beam_width: int = 1,
    kv_fraction: float = KV_FRACTION,
    why_no_gpu: str = "no GPU is named",
) -> ChosenLimits:
    """The limits of an engine for `gpu`: what was asked for, else what its memory suggests.

    Without a GPU, or with one whose memory isn't known, they are the model's and plain defaults;
    `why_no_gpu` is then a reason.
    `config` is a checkpoint's. Raises LimitError for what can't be, or doesn't fit.
    """
    asked: _Asked = {
        "max_batch_size": max_batch_size,
        "max_seq_len": max_seq_len,
        "max_num_tokens": max_num_tokens,
    }
    known = gpu if gpu is not None and gpu.memory_bytes is not None else None
    if known is None:
        chosen = _plain(config, gpu, asked, why_no_gpu)
    else:
        chosen = _suggested(config, known, asked, max_beam_width, kv_fraction)
    chosen |= {name: (value, "asked for") for name, value in asked.items() if value is not None}
    limits = {name: value for name, (value, _) in chosen.items()}
    check(config, **limits)
    if known is not None:
        rank_memory(
            config, gpu=known, max_beam_width=max_beam_width, kv_fraction=kv_fraction, **limits
        )
    return ChosenLimits(**limits, reasons={name: why for name, (_, why) in chosen.items()})


def _plain(config: Config, gpu: Gpu | None, asked: _Asked, why_no_gpu: str) -> _Chosen:
    whose = why_no_gpu if gpu is None else f"{gpu.name}'s memory isn't known"
    batch = asked["max_batch_size"] or BATCH_SIZE_WITHOUT_GPU
    return {
        "max_batch_size": (batch, f"{whose}: a plain default"),
        "max_seq_len": (config["max_position_embeddings"], "what the model was made for"),
        "max_num_tokens": (max(NUM_TOKENS[0], batch), "TensorRT-LLM's default"),
    }


def _suggested(
    config: Config, gpu: Gpu, asked: _Asked, max_beam_width: int, kv_fraction: float
) -> _Chosen:
    """One after the other: tokens of a step, sequences at once, tokens of the longest."""
    load = Load(
        max_batch_size=asked["max_batch_size"] or 1,
        max_num_tokens=asked["max_num_tokens"] or NUM_TOKENS[0],
        max_seq_len=asked["max_seq_len"] or config["max_position_embeddings"],
        max_beam_width=max_beam_width,
        kv_fraction=kv_fraction,
    )
    tokens, why_tokens = _num_tokens(config, gpu, load)
    load = replace(load, max_num_tokens=asked["max_num_tokens"] or tokens)
    batch, why_batch = _batch_size(config, gpu, load)
    load = replace(load, max_batch_size=asked["max_batch_size"] or batch)
    length, why_length = _seq_len(config, gpu, load)
    return {
        "max_batch_size": (batch, why_batch),
        "max_seq_len": (length, why_length),
        "max_num_tokens": (tokens, why_tokens),
    }


def _num_tokens(config: Config, gpu: Gpu, load: Load) -> tuple[int, str]:
    tokens = NUM_TOKENS[0]
    for tokens in NUM_TOKENS:
        found = fullest_rank(config, gpu, replace(load, max_num_tokens=tokens))
        left = found.gpu_bytes - found.weights_bytes - found.runtime_bytes
        if found.activation_bytes <= ACTIVATION_PART * left:
            break
    why = "TensorRT-LLM's default"
    if tokens != NUM_TOKENS[0]:
        why = f"more activations would take over {ACTIVATION_PART:.0%} of what the weights leave"
    return max(tokens, load.max_batch_size), why


def _batch_size(config: Config, gpu: Gpu, load: Load) -> tuple[int, str]:
    usual = min(USUAL_SEQUENCE_TOKENS, load.max_seq_len)
    most = min(MOST_BATCH_SIZE, load.max_num_tokens)
    found = fullest_rank(config, gpu, replace(load, max_batch_size=most, max_seq_len=usual))
    fits = found.kv_cache_tokens // (usual * load.max_beam_width)
    if fits >= most:
        return most, f"the KV cache holds {fits} sequences of {usual} tokens: more wins little"
    why = f"the KV cache holds {found.kv_cache_tokens} tokens, at {usual} tokens a sequence"
    return max(1, fits - fits % 8 if fits > 8 else fits), why


def _seq_len(config: Config, gpu: Gpu, load: Load) -> tuple[int, str]:
    trained = int(config["max_position_embeddings"])
    found = fullest_rank(config, gpu, load)
    fits = found.kv_cache_tokens // load.max_beam_width
    if not 0 < fits < trained:
        return trained, "what the model was made for"
    return fits, f"what the KV cache holds; the model was made for {trained}"
