"""The element types of weights, once: our names, safetensors' names, numpy's types.

Our names are those of torch and of TensorRT-LLM's configs ("bfloat16", "int8", ...).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Source of the codes: the `Dtype` enum of the safetensors format.
SAFETENSORS_CODES: dict[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
SAFETENSORS_CODE_OF = {name: code for code, name in SAFETENSORS_CODES.items()}

NUMPY: dict[str, np.dtype[Any]] = {
    name: np.dtype(getattr(ml_dtypes, name, None) or name) for name in SAFETENSORS_CODE_OF
}

FLOATS = ("float16", "bfloat16", "float32")
"""The types that a TensorRT-LLM checkpoint's unquantized weights may have."""


def raw(array: Array) -> memoryview:
    """The bytes of a C-contiguous array of any dtype, without a copy.

    numpy's own buffer interface refuses the ml_dtypes types.
    """
    return array.reshape(-1).view(np.uint8).data


_INFINITY_BITS = {NUMPY["float16"]: 0x7C00, NUMPY["bfloat16"]: 0x7F80}


def all_finite(array: Array) -> bool:
    """Whether no number of it is NaN or infinite.

    16-bit floats are compared as integers: numpy's isfinite takes ten times as long for them.
    """
    if array.dtype not in _INFINITY_BITS:
        return bool(np.isfinite(array).all())
    magnitudes = array.view(np.uint16) & 0x7FFF
    return bool(magnitudes.max(initial=0) < _INFINITY_BITS[array.dtype])
