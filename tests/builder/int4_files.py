"""Writes AWQ and GPTQ folders by the letter of their formats, one code at a time.

AutoAWQ 0.2.9 (`WQLinear_GEMM.from_linear`) and AutoGPTQ 0.7.1 (`QuantLinear.pack`) pack so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from model_files import FIELDS, huggingface_shapes, write_safetensors

from builder.dtypes import Array

GROUP = 64
INT4_FIELDS: dict[str, Any] = {
    **FIELDS,
    "hidden_size": 256,
    "intermediate_size": 512,
    "torch_dtype": "float16",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "awq": {"bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "gptq": {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": False},
}
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def write_folder(
    folder: Path, tokenizer: Path, method: str, *, intermediate_size: int = 512, **changes: Any
) -> dict[str, Array]:
    """Write a random Llama; give its true weights, float64, by Hugging Face's names.

    `changes` are to the method's own config. Scales are such that products with zero points are
    exact in float16 and in bfloat16.
    """
    config = {"quant_method": method, **CONFIGS[method], **changes}
    fields = {**INT4_FIELDS, "intermediate_size": intermediate_size}
    rng = np.random.default_rng(1)
    truth: dict[str, Array] = {}
    tensors: dict[str, Array] = {}
    for name, shape in huggingface_shapes(fields).items():
        prefix = name.rpartition(".")[0]
        if not prefix.endswith(LINEARS):
            tensors[name] = rng.standard_normal(shape, np.float32).astype(np.float16)
            truth[name] = tensors[name].astype(np.float64)
            continue
        rows, columns = shape
        codes = rng.integers(0, 16, (columns, rows))
        # 0 can't be stored by GPTQ's first version.
        zeros = rng.integers(1, 16, (columns // GROUP, rows))
        scales = rng.integers(1, 16, zeros.shape) / 1024
        wide = [each.repeat(GROUP, axis=0) for each in (zeros, scales)]
        truth[name] = ((codes - wide[0]) * wide[1]).T
        members = {
            "qweight": _pack_rows(codes) if method == "gptq" else _pack_columns(codes, _AWQ_ORDER),
            "qzeros": _qzeros(zeros, config),
            "scales": scales.astype(np.float16),
        }
        if method == "gptq":
            members["g_idx"] = np.arange(columns, dtype=np.int32) // GROUP
        tensors |= {f"{prefix}.{member}": array for member, array in members.items()}
    folder.mkdir()
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    fields["quantization_config"] = config
    (folder / "config.json").write_text(json.dumps(fields))
    write_safetensors(folder / "model.safetensors", tensors)
    return truth


def _qzeros(zeros: Array, config: dict[str, Any]) -> Array:
    if config["quant_method"] == "awq":
        return _pack_columns(zeros, _AWQ_ORDER)
    first_version = config.get("checkpoint_format", "gptq") == "gptq"
    return _pack_columns(zeros - first_version, tuple(range(8)))


def _pack_columns(codes: Array, order: tuple[int, ...]) -> Array:
    """Nibble i of a word is column order[i] of its eight."""
    words = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for word in range(words.shape[1]):
        for nibble, column in enumerate(order):
            words[:, word] |= codes[:, 8 * word + column].astype(np.uint32) << 4 * nibble
    return words.view(np.int32)


def _pack_rows(codes: Array) -> Array:
    """Nibble i of a word is row i of its eight."""
    words = np.zeros((codes.shape[0] // 8, codes.shape[1]), np.uint32)
    for row in range(codes.shape[0]):
        words[row // 8] |= codes[row].astype(np.uint32) << 4 * (row % 8)
    return words.view(np.int32)
