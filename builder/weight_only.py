"""Which weights TensorRT-LLM's loader quantizes itself, and how (W8A16, W4A16).

Sources: TensorRT-LLM 1.2, `models/convert_utils.py`, `weight_only_quantize_dict`, and
`cutlass_kernels/cutlass_preprocessors.cpp`, `symmetric_quantize`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from builder.dtypes import NUMPY, Array

BITS = {"W8A16": 8, "W4A16": 4}
"""quant_algo → bits of a weight."""

_QUANTIZED = ("qkv.weight", "dense.weight", "fc.weight", "proj.weight", "gate.weight")
_EXCLUDED = ("*shared_expert_gate.weight",)


def bits(module: str, quantization: Mapping[str, Any]) -> int:
    """How many bits the loader gives the weights of a plain linear; 0 where it leaves them.

    `quantization` is the checkpoint's. The loader matches exclusions with the tensor's name, the
    network with the module's: either counts.
    """
    name = f"{module}.weight"
    patterns = [str(each) for each in quantization.get("exclude_modules") or _EXCLUDED]
    excluded = any(fnmatchcase(each, one) for each in (name, module) for one in patterns)
    if excluded or not any(part in name for part in _QUANTIZED):
        return 0
    return BITS.get(str(quantization.get("quant_algo")), 0)


def quantized(wide: Array, bits: int, dtype: str) -> tuple[Array, Array]:
    """Codes int8 [out, in] and scales float32 [out, 1] of weights float32 [out, in].

    A scale is the largest magnitude over 128 or 8, which itself becomes the code below. Halves are
    rounded away from zero. The scale that is multiplied with later is rounded to `dtype`, the
    weights' own.
    """
    most = 1 << (bits - 1)
    scales = np.abs(wide).max(axis=1, keepdims=True) / np.float32(most)
    parts = np.divide(wide, scales, out=np.zeros_like(wide), where=scales != 0)
    rounded = np.trunc(parts + np.copysign(np.float32(0.5), parts))
    codes = np.clip(rounded, -most, most - 1).astype(np.int8)
    return codes, scales.astype(NUMPY[dtype]).astype(np.float32)
