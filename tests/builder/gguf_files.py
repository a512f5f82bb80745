"""Writes small GGUF files with the `gguf` package, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

from builder.dtypes import Array

F32 = GGMLQuantizationType.F32

BYTES = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 512))][:256]
"""GPT-2's characters for bytes, in no order that matters here."""

LLAMA: dict[str, Any] = {
    "block_count": 1,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "context_length": 256,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10000.0,
}
TOKENIZER: dict[str, Any] = {
    "model": "gpt2",
    "pre": "smollm",
    "tokens": [*BYTES, "ab", "<|im_end|>"],
    "token_type": [int(TokenType.NORMAL)] * 257 + [int(TokenType.CONTROL)],
    "merges": ["a b"],
    "eos_token_id": 257,
}


def shapes(fields: Mapping[str, Any] = LLAMA, vocab: int = 258) -> dict[str, tuple[int, ...]]:
    """The tensors of a one-layer Llama in GGUF's names, shapes as numpy has them."""
    hidden, inter = fields["embedding_length"], fields["feed_forward_length"]
    kv = hidden // fields["attention.head_count"] * fields["attention.head_count_kv"]
    return {
        "token_embd.weight": (vocab, hidden),
        "output_norm.weight": (hidden,),
        "blk.0.attn_norm.weight": (hidden,),
        "blk.0.attn_q.weight": (hidden, hidden),
        "blk.0.attn_k.weight": (kv, hidden),
        "blk.0.attn_v.weight": (kv, hidden),
        "blk.0.attn_output.weight": (hidden, hidden),
        "blk.0.ffn_norm.weight": (hidden,),
        "blk.0.ffn_gate.weight": (inter, hidden),
        "blk.0.ffn_up.weight": (inter, hidden),
        "blk.0.ffn_down.weight": (hidden, inter),
    }


def zeros() -> dict[str, Array]:
    """Tensors for a file whose weights don't matter."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes().items()}


def write_gguf(
    path: Path,
    tensors: Mapping[str, Array],
    *,
    architecture: str = "llama",
    fields: Mapping[str, Any] = LLAMA,
    tokenizer: Mapping[str, Any] = TOKENIZER,
    extra: Mapping[str, Any] | None = None,
    kinds: Mapping[str, GGMLQuantizationType] | None = None,
) -> Path:
    """Write a file; a tensor of a kind in `kinds` is given as its stored bytes."""
    writer = GGUFWriter(path, architecture)
    named = {f"{architecture}.{name}": value for name, value in fields.items()}
    named |= {f"tokenizer.ggml.{name}": value for name, value in tokenizer.items()}
    for name, value in {**named, **(extra or {})}.items():
        _add(writer, name, value)
    for name, array in tensors.items():
        writer.add_tensor(name, array, raw_dtype=(kinds or {}).get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, name: str, value: Any) -> None:
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](name, value)
