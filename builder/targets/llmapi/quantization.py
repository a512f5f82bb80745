"""Which quantized weights TensorRT-LLM's PyTorch backend loads, and which a folder says it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.errors import ModelError
from builder.source import huggingface
from builder.source.hf_quantization import MODELOPT_CONFIG

RUNNABLE = (
    "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_BLOCK_SCALES",
    "FP8_PB_WO",
    "MIXED_PRECISION",
    "MXFP8",
    "NVFP4",
    "W4A16",
    "W4A16_AWQ",
    "W4A16_MXFP4",
    "W4A8_AWQ",
    "W4A8_MXFP4_FP8",
    "W4A8_MXFP4_MXFP8",
    "W4A8_NVFP4_FP8",
    "W8A16",
)
"""ModelOpt's algorithms with a linear method in `tensorrt_llm/_torch/modules/linear.py`."""

METHODS = ("compressed-tensors", "fp8", "modelopt", "mxfp4", "mxfp8", "nvfp4")
"""`quant_method`s that `tensorrt_llm/_torch/model_config.py` knows. It takes the weights of any
other for unquantized, and fails when it loads them."""

_AGAIN = "quantize the original: trtbuild quantize MODEL --hf FOLDER --recipe fp8"

Fields = Mapping[str, Any]


def quantization(path: Path, fields: Fields) -> tuple[str | None, str | None]:
    """How the weights and the KV cache are quantized, in ModelOpt's or the tool's own words.

    Raises ModelError for a way that TensorRT-LLM's PyTorch backend doesn't load.
    """
    stated = fields.get("quantization_config") or {}
    if (path / MODELOPT_CONFIG).is_file():
        stated = huggingface.read_json(path / MODELOPT_CONFIG).get("quantization") or {}
        return _modelopt(path / MODELOPT_CONFIG, stated)
    if not stated:
        return None, None
    method = stated.get("quant_method") or stated.get("quant_library")
    if method == "modelopt":
        scheme = stated.get("kv_cache_scheme") or {}
        cache = "FP8" if scheme.get("num_bits") == 8 else None
        return _modelopt(path / huggingface.CONFIG, {"kv_cache_quant_algo": cache, **stated})
    if method not in METHODS:
        raise ModelError(
            f"{path / huggingface.CONFIG}: TensorRT-LLM's PyTorch backend can't load these weights",
            found=f"quant_method {method!r}",
            do=f"known are {', '.join(METHODS)}; {_AGAIN}",
        )
    if method == "fp8" and not stated.get("weight_block_size"):
        raise ModelError(
            f"{path / huggingface.CONFIG}: only FP8 in blocks of 128 x 128 is loaded",
            found="no weight_block_size",
            do=_AGAIN,
        )
    return str(method), None


def _modelopt(path: Path, stated: Fields) -> tuple[str | None, str | None]:
    algorithm, cache = stated.get("quant_algo"), stated.get("kv_cache_quant_algo")
    if algorithm is not None and algorithm not in RUNNABLE:
        raise ModelError(
            f"{path}: TensorRT-LLM's PyTorch backend can't compute with these weights",
            found=str(algorithm),
            do=f"it has {', '.join(RUNNABLE)}; {_AGAIN}",
        )
    return algorithm, cache
