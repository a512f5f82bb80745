"""Numbers as codes of few bits: FP8, INT8, INT4 and FP4, with the roundings of ModelOpt's export.

float8 is e4m3fn, FP4 is e2m1 (OCP Microscaling formats 1.0); NVFP4 has a float8 scale for every
16 inputs and a float32 one over all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from builder.dtypes import NUMPY, Array

FP8_LARGEST = np.float32(448)
FP4_LARGEST = np.float32(6)
INT8_LARGEST = np.float32(127)
INT4_LARGEST = np.float32(7)
"""What the largest magnitude becomes; -8 is left out by the scale, not by the codes."""

NVFP4_GROUP = 16
_FP4_BOUNDS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], np.float32)
"""Between the magnitudes 0, 0.5, 1, 1.5, 2, 3, 4 and 6."""
_LEAST_SCALE = np.float32(2**-9)
"""The smallest number that float8 has above zero."""

OfRows = Callable[[Array, slice], Array]
"""Of rows float32 [n, in] and where they are, what they become."""


def scale(amax: Array, largest: np.float32) -> Array:
    """float32: what codes are multiplied with; 1 where there are only zeros."""
    found = np.asarray(amax, np.float32)
    result: Array = np.where(found == 0, np.float32(1), found / largest)
    return result


def fp8(wide: Array) -> Array:
    """float8; what is beyond its range becomes its largest."""
    result: Array = np.clip(wide, -FP8_LARGEST, FP8_LARGEST).astype(NUMPY["float8_e4m3fn"])
    return result


def int8(wide: Array, scales: Array) -> Array:
    """int8 [out, in] with scales float32 [out]."""
    result: Array = np.clip(np.rint(wide / scales[:, None]), -128, 127).astype(np.int8)
    return result


def int4_pairs(wide: Array, scales: Array) -> Array:
    """int8 [out / 2, in] with scales float32 [out, groups]: two outputs in a byte, even one low."""
    rows, columns = wide.shape
    groups = wide.reshape(rows, scales.shape[1], -1) / scales[:, :, None]
    found = np.clip(np.rint(groups), -8, 7).astype(np.int8).reshape(rows, columns)
    low, high = found[0::2] & np.int8(0x0F), found[1::2] << np.int8(4)
    result: Array = low | high
    return result


def nvfp4_scales(wide: Array, whole: Array) -> Array:
    """float8 [out, in / 16]: the scale of each group, in parts of `whole`."""
    amax = np.abs(wide).reshape(len(wide), -1, NVFP4_GROUP).max(axis=2)
    found = amax / (FP4_LARGEST * whole)
    found[found == 0] = 1
    return fp8(np.maximum(found, _LEAST_SCALE))


def fp4_pairs(wide: Array, scales: Array, whole: Array) -> Array:
    """uint8 [out, in / 2]: two inputs in a byte, the even one low; halves go to the even code."""
    each = scales.astype(np.float32) * whole
    found = wide.reshape(len(wide), -1, NVFP4_GROUP) / each[:, :, None]
    magnitudes = np.abs(found)
    ordinals = np.searchsorted(_FP4_BOUNDS, magnitudes).astype(np.uint8)
    ordinals += np.isin(magnitudes, _FP4_BOUNDS[1::2])
    nibbles = (ordinals | (found < 0).astype(np.uint8) << np.uint8(3)).reshape(len(wide), -1)
    result: Array = nibbles[:, 0::2] | nibbles[:, 1::2] << np.uint8(4)
    return result
