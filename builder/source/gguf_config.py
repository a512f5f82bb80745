"""Reads GGUF's metadata into a ModelConfig."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from builder.errors import ModelError
from builder.source import gguf_tables as tables
from builder.source.config import ModelConfig
from builder.source.gguf_file import GgufFile


def model_config(file: GgufFile, architecture: tables.Architecture) -> ModelConfig:
    """The config of the model in `file`.

    What the metadata don't say follows from the tensors: the size of the vocabulary, biases,
    tied embeddings, the dtype. Raises ModelError for a missing key or a value that can't be
    carried over.
    """
    values: dict[str, Any] = {
        attribute: _integer(file, key) for attribute, key in tables.INTEGERS.items()
    }
    for attribute, key in tables.OPTIONAL_INTEGERS.items():
        values[attribute] = _integer(file, key) if _has(file, key) else None
    heads = values["num_attention_heads"]
    values["num_key_value_heads"] = values["num_key_value_heads"] or heads
    values["head_size"] = values["head_size"] or values["hidden_size"] // heads
    if (values["sliding_window"] or 0) >= values["max_position_embeddings"]:
        values["sliding_window"] = None
    values["rotary_base"] = _rotary_base(file)
    values["rotary_scaling"] = _rotary_scaling(file, values)
    _refuse(file, values)
    return ModelConfig(
        architecture=architecture.huggingface,
        dtype=_dtype(file),
        vocab_size=_vocab_size(file),
        norm_epsilon=_float(_required(file, tables.NORM_EPSILON)),
        hidden_act="silu",
        tie_word_embeddings="output.weight" not in file.tensors,
        attn_bias="blk.0.attn_q.bias" in file.tensors,
        mlp_bias="blk.0.ffn_gate.bias" in file.tensors,
        **values,
    )


def _key(file: GgufFile, key: str) -> str:
    return f"{file.fields['general.architecture']}.{key}"


def _has(file: GgufFile, key: str) -> bool:
    return _key(file, key) in file.fields


def _required(file: GgufFile, key: str) -> Any:
    if not _has(file, key):
        raise ModelError(
            f"{file.path} has no field {_key(file, key)}", do="convert it again with llama.cpp"
        )
    return file.fields[_key(file, key)]


def _integer(file: GgufFile, key: str) -> int:
    value = _required(file, key)
    if type(value) is not int or value < 0:
        raise ModelError(
            f"{file.path}: {_key(file, key)} must be one number for all layers", found=repr(value)
        )
    return value


def _float(value: Any) -> float:
    """GGUF stores float32: 1e-05 must not become 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _rotary_base(file: GgufFile) -> float:
    value = file.fields.get(_key(file, tables.ROTARY_BASE), tables.ROTARY_BASE_DEFAULT)
    return _float(value)


def _refuse(file: GgufFile, values: dict[str, Any]) -> None:
    rotated = file.fields.get(_key(file, "rope.dimension_count"), values["head_size"])
    if rotated != values["head_size"]:
        raise ModelError(
            f"{file.path}: a rotary embedding of a part of each head can't be expressed",
            found=f"{rotated} of {values['head_size']} dimensions",
        )
    if file.fields.get(_key(file, "expert_count"), 0):
        raise ModelError(f"{file.path}: mixtures of experts are not supported yet")


def _vocab_size(file: GgufFile) -> int:
    if "token_embd.weight" not in file.tensors:
        raise ModelError(f"{file.path} has no tensor token_embd.weight")
    return file.tensors["token_embd.weight"].shape[0]


def _dtype(file: GgufFile) -> str:
    """The dtype of most matrices, or that for quantized ones."""
    kinds = Counter(t.kind.name for t in file.tensors.values() if len(t.shape) > 1)
    return tables.DTYPES.get(kinds.most_common(1)[0][0], tables.QUANTIZED_DTYPE)


def _rotary_scaling(file: GgufFile, values: dict[str, Any]) -> dict[str, Any] | None:
    if tables.ROPE_FACTORS in file.tensors:
        return _llama3(file, values)
    kind = file.fields.get(_key(file, tables.ROPE_TYPE), "none")
    if kind == "none":
        return None
    if kind not in tables.ROPE_TYPES:
        raise ModelError(
            f"{file.path}: RoPE scaling of this type can't be expressed",
            found=repr(kind),
            do=f"known are {', '.join(tables.ROPE_TYPES)}",
        )
    scaling = {
        name: _plain(file.fields[_key(file, key)])
        for name, key in tables.ROPE_SCALING.items()
        if _has(file, key)
    }
    if kind == "yarn":
        scaling.setdefault("original_max_position_embeddings", values["max_position_embeddings"])
    if "factor" not in scaling:
        raise ModelError(f"{file.path} has no field {_key(file, tables.ROPE_SCALING['factor'])}")
    return {"rope_type": kind, **scaling}


def _plain(value: Any) -> Any:
    return _float(value) if isinstance(value, float) else value


def _llama3(file: GgufFile, values: dict[str, Any]) -> dict[str, Any]:
    """Llama 3's scaling, recognised by the vector that it makes."""
    stored = np.concatenate(list(file.tensors[tables.ROPE_FACTORS].blocks()))
    scaling = {"rope_type": "llama3", "factor": _float(stored.max()), **tables.LLAMA3_FREQUENCIES}
    factors = llama3_factors(scaling, values["rotary_base"], values["head_size"])
    if stored.shape != factors.shape or not np.allclose(stored, factors, rtol=1e-3):
        raise ModelError(
            f"{file.path}: {tables.ROPE_FACTORS} is not a RoPE scaling that we know",
            do="convert from the Hugging Face folder",
        )
    return scaling


def llama3_factors(
    scaling: dict[str, Any], rotary_base: float, head_size: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What each of the head_size / 2 rotary frequencies is divided by, float64.

    Formula: `_compute_llama3_parameters` of transformers.
    """
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] / (
        2 * np.pi * rotary_base ** (np.arange(0, head_size, 2) / head_size)
    )
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors: np.ndarray[Any, np.dtype[np.float64]] = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    return factors
