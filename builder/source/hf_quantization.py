"""How a Hugging Face folder says that its weights are quantized, and whether that can be converted.

Formats: ModelOpt 0.47's unified export (`hf_quant_config.json`, and `quantization_config` in
config.json), AutoAWQ 0.2.9 and AutoGPTQ 0.7.1 (`quantization_config` alone).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from builder.errors import ModelError

MODELOPT_CONFIG = "hf_quant_config.json"
GROUP_SIZES = (64, 128)
"""Inputs per scale that TensorRT-LLM's 4-bit kernels take."""

Fields = Mapping[str, Any]


class Format(Enum):
    """How a quantized linear is stored; a value is what users call it."""

    FP8 = "ModelOpt FP8"
    NVFP4 = "ModelOpt NVFP4"
    INT8 = "ModelOpt W8A8_SQ_PER_CHANNEL"
    INT4 = "ModelOpt W4A16_AWQ"
    W4A8 = "ModelOpt W4A8_AWQ"
    MIXED = "ModelOpt MIXED_PRECISION"
    AWQ = "AWQ"
    GPTQ = "GPTQ"
    GPTQ_V2 = "GPTQ v2"


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """A quantized source or linear: its format, inputs per scale (0: one for all).

    `kv_cache` is that of the source's KV cache, "FP8", "INT8" or None.
    """

    format: Format
    group_size: int = 0
    kv_cache: str | None = None


def quantization(folder: Path, fields: Fields) -> Quantization | None:
    """What config.json (`fields`) and hf_quant_config.json say, None for plain weights.

    Raises ModelError, with the reason, for a quantization that can't be converted rightly.
    """
    path = folder / "config.json"
    stated = fields.get("quantization_config") or {}
    if not isinstance(stated, Mapping):
        _refuse(path, "quantization_config", repr(stated), "it is not an object")
    if (folder / MODELOPT_CONFIG).is_file():
        return _modelopt(folder / MODELOPT_CONFIG, _modelopt_file(folder / MODELOPT_CONFIG))
    if not stated:
        return None
    # ModelOpt before 0.37 wrote `quant_library`.
    method = str(stated.get("quant_method") or stated.get("quant_library") or "an unknown method")
    if method not in _READERS:
        reason = _OTHERS.get(method, "its tensors have no place in TensorRT-LLM's checkpoint")
        _refuse(path, "quantization_config", method, reason)
    return _READERS[method](path, stated)


def _modelopt_file(path: Path) -> Fields:
    try:
        found = json.loads(path.read_bytes())["quantization"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        raise ModelError(f"{path} has no object quantization", do="download it again")
    return found


def _modelopt_fields(path: Path, stated: Fields) -> Quantization:
    """The same that hf_quant_config.json says, in config.json's words."""
    groups = stated.get("config_groups") or {}
    weights = (groups.get("group_0") or {}).get("weights") or {}
    cache = stated.get("kv_cache_scheme")
    if isinstance(cache, Mapping):
        cache = "FP8" if (cache.get("type"), cache.get("num_bits")) == ("float", 8) else str(cache)
    return _modelopt(
        path,
        {
            "quant_algo": stated.get("quant_algo"),
            "kv_cache_quant_algo": cache,
            "group_size": stated.get("group_size") or weights.get("group_size"),
        },
    )


def _modelopt(path: Path, stated: Fields) -> Quantization:
    algo, cache = stated.get("quant_algo"), stated.get("kv_cache_quant_algo")
    if algo not in _MODELOPT:
        _refuse(path, "quant_algo", repr(algo), f"known are {', '.join(_MODELOPT)}")
    if cache not in (None, "FP8"):
        _refuse(path, "kv_cache_quant_algo", repr(cache), "only FP8 is known")
    if stated.get("has_zero_point"):
        _refuse(path, "has_zero_point", "true", "ModelOpt's own formats have none")
    found = _MODELOPT[algo]
    group = {Format.FP8: 0, Format.NVFP4: 16, Format.INT4: 128}[found]
    size = stated.get("group_size") or group
    if found is Format.INT4:
        _check_group(path, size)
    elif found is Format.NVFP4 and size != group:
        _refuse(path, "group_size", repr(size), f"only {group} is known")
    group = size if found is not Format.FP8 else 0
    return Quantization(format=found, group_size=group, kv_cache=cache)


def _awq(path: Path, stated: Fields) -> Quantization:
    for key, default, wanted, reason in (
        ("bits", None, 4, "only 4 bits are known"),
        ("version", "gemm", "gemm", "only the layout gemm is known: save it again with it"),
        ("backend", "autoawq", "autoawq", "only AutoAWQ's layout is known"),
        ("zero_point", None, True, "only a form with zero points is known"),
    ):
        value = stated.get(key, default)
        if (value.lower() if isinstance(value, str) else value) != wanted:
            _refuse(path, f"quantization_config.{key}", repr(value), reason)
    _check_group(path, stated.get("group_size"))
    return Quantization(format=Format.AWQ, group_size=stated["group_size"])


def _gptq(path: Path, stated: Fields) -> Quantization:
    if stated.get("bits") != 4:
        _refuse(
            path,
            "quantization_config.bits",
            repr(stated.get("bits")),
            "TensorRT-LLM's loader arranges 4-bit weights only",
        )
    if stated.get("desc_act"):
        reason = "TensorRT-LLM's kernels take inputs group by group, not in the order of activation"
        _refuse(path, "quantization_config.desc_act", "true", reason)
    layout = stated.get("checkpoint_format") or "gptq"
    if layout not in _GPTQ or stated.get("is_marlin_format"):
        _refuse(
            path,
            "quantization_config.checkpoint_format",
            "marlin" if stated.get("is_marlin_format") else repr(layout),
            f"known are {' and '.join(_GPTQ)}",
        )
    _check_group(path, stated.get("group_size"))
    return Quantization(format=_GPTQ[layout], group_size=stated["group_size"])


def _check_group(path: Path, size: Any) -> None:
    if type(size) is not int or size not in GROUP_SIZES:
        known = " or ".join(map(str, GROUP_SIZES))
        _refuse(path, "group_size", repr(size), f"TensorRT-LLM's 4-bit kernels take {known}")


def _refuse(path: Path, key: str, found: str, reason: str) -> NoReturn:
    raise ModelError(
        f"{path} describes a model that is already quantized in a way that can't be converted:"
        f" {reason}",
        found=f"{key} {found}",
        do="start from the unquantized model and quantize it with trtbuild quantize, or serve it"
        " without an engine: --target llmapi",
    )


_MODELOPT = {"FP8": Format.FP8, "NVFP4": Format.NVFP4, "W4A16_AWQ": Format.INT4}
_GPTQ = {"gptq": Format.GPTQ, "gptq_v2": Format.GPTQ_V2}
_READERS: Mapping[str, Callable[[Path, Fields], Quantization]] = {
    "modelopt": _modelopt_fields,
    "awq": _awq,
    "gptq": _gptq,
}
_OTHERS = {
    "fp8": "its scales are for blocks or computed on the way; engines need one for each tensor",
    "fbgemm_fp8": "its scales are for rows; engines need one for each tensor and its input",
    "bitsandbytes": "its codes are of a type that no TensorRT-LLM kernel reads",
    "mxfp4": "TensorRT-LLM's engines never had it",
    "compressed-tensors": "it is not one format but many, none of which is known here",
}
"""Reasons, for methods that are often met."""
