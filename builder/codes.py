"""Numbers as codes of few bits: FP8, INT8, INT4 and FP4, with the roundings of ModelOpt's export.

float8 is e4m3fn, FP4 is e2m1 (OCP Microscaling formats 1.0); NVFP4 has a float8 scale for every
16 inputs and a float32 one over all.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

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
_ONE = np.float32(1)
_LEAST_NORMAL = np.finfo(np.float32).tiny
_LEAST_SCALE = np.float32(2**-9)
"""The smallest number that float8 has above zero."""


def amax(numbers: Array, group_size: int) -> Array:
    """float32 [out, in / group size]: the largest magnitudes of numbers [out, in].

    Those of 16 bits are compared as integers, which have the same order and take a third.
    """
    small = numbers.dtype.itemsize == 2
    ordered = numbers.view(np.uint16) & np.uint16(0x7FFF) if small else np.abs(numbers)
    largest = ordered.reshape(len(numbers), -1, group_size).max(axis=2)
    result: Array = largest.view(numbers.dtype).astype(np.float32)
    return result


def scale(magnitudes: Array, largest: np.float32) -> Array:
    """float32: what codes are multiplied with; 1 where there are only zeros."""
    found = np.asarray(magnitudes, np.float32)
    result: Array = np.where(found == 0, np.float32(1), found / largest)
    return result


def fp8(numbers: Array, scale: Array | np.float32 = _ONE) -> Array:
    """float8 of the numbers over one scale; what is beyond its range becomes its largest.

    Numbers of 16 bits are looked up: casting to float8 takes eight times as long.
    """
    if numbers.dtype.itemsize == 2:
        found: Array = _fp8_table(float(scale), numbers.dtype).take(numbers.view(np.uint16))
        return found
    wide = numbers.astype(np.float32, copy=False) / scale
    result: Array = np.clip(wide, -FP8_LARGEST, FP8_LARGEST).astype(NUMPY["float8_e4m3fn"])
    return result


@lru_cache(maxsize=64)
def _fp8_table(scale: float, dtype: np.dtype[Any]) -> Array:
    """float8 [65536]: of every number of 16 bits, divided by the scale."""
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return fp8(every, np.float32(scale))


def int8(numbers: Array, scales: Array) -> Array:
    """int8 [out, in] with the scales of its outputs, float32 [out]."""
    return _rounded(numbers, scales[:, None], INT8_LARGEST)


def _rounded(numbers: Array, scales: Array, largest: np.float32) -> Array:
    """int8: the numbers over their scales, half to even.

    Scales are those that make the largest magnitude `largest`, so that only of numbers too small
    for float32 to divide can anything be beyond it.
    """
    wide = numbers.astype(np.float32)
    np.divide(wide, scales, out=wide)
    np.rint(wide, out=wide)
    if scales.min(initial=_ONE) < _LEAST_NORMAL:
        np.clip(wide, -largest, largest, out=wide)
    return wide.astype(np.int8)


def int4_pairs(numbers: Array, scales: Array) -> Array:
    """int8 [out / 2, in] with the groups' scales [out, groups]: two outputs in a byte, even low."""
    groups = numbers.reshape(*scales.shape, -1)
    found = _rounded(groups, scales[:, :, None], INT4_LARGEST).reshape(numbers.shape)
    low, high = found[0::2] & np.int8(0x0F), found[1::2] << np.int8(4)
    result: Array = low | high
    return result


def nvfp4_scales(numbers: Array, whole: Array) -> Array:
    """float8 [out, in / 16]: the scale of each group, in parts of `whole`."""
    found = amax(numbers, NVFP4_GROUP) / (FP4_LARGEST * whole)
    found[found == 0] = 1
    return fp8(np.maximum(found, _LEAST_SCALE))


def fp4_pairs(numbers: Array, scales: Array, whole: Array) -> Array:
    """uint8 [out, in / 2]: two inputs in a byte, the even one low; halves go to the even code."""
    each = scales.astype(np.float32) * whole
    groups = numbers.reshape(len(numbers), -1, NVFP4_GROUP).astype(np.float32)
    found = groups / each[:, :, None]
    magnitudes = np.abs(found)
    ordinals = np.searchsorted(_FP4_BOUNDS, magnitudes).astype(np.uint8)
    ordinals += np.isin(magnitudes, _FP4_BOUNDS[1::2])
    nibbles = (ordinals | (found < 0).astype(np.uint8) << np.uint8(3)).reshape(len(numbers), -1)
    result: Array = nibbles[:, 0::2] | nibbles[:, 1::2] << np.uint8(4)
    return result
