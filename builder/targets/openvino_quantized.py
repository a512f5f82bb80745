"""A quantized linear in the graph: its weights stay codes, its inputs are scaled, maybe rounded.

Constant → Convert → Subtract → Multiply → Reshape is what the CPU plugin takes for a compressed
weight: it keeps the codes and multiplies with them. With AVX2 it does so for integers of 8 and 4
bits; float8 it widens to float32 when it compiles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import openvino as ov
from openvino import Node
from openvino import opset15 as ops

from builder import codes
from builder.dequantize import CodedLinear, Codes, Coding, Place
from builder.dtypes import Array
from builder.safetensors_file import ALL
from builder.targets.openvino_nodes import float32, int64
from builder.targets.openvino_scratch import Scratch

_LARGEST = float(codes.FP8_LARGEST)
_UNSIGNED = 8
"""What 4-bit codes are shifted by where they have zeros."""


class QuantizedLinear:
    """The nodes of a linear that isn't plain.

    `exact` has everything that is rounded on a GPU rounded alike: FP8 inputs, and W4A8's weights
    their second time. Without it these are left at the arithmetic's precision. INT8 inputs are
    always rounded, as that costs nothing.
    """

    def __init__(self, linear: CodedLinear, *, exact: bool, scratch: Scratch | None) -> None:
        self._linear, self._scratch = linear, scratch
        step = linear.number("activation_scaling_factor")
        self._step = step if exact or linear.coding is Coding.INT8 else None
        second = linear.number("weights_scaling_factor_2")
        self._second = second if exact and linear.rounds_twice else None
        self._with_zeros = "zero" in linear.tensors
        if linear.coding is Coding.INT8:
            self._type = ov.Type.i8
        elif linear.coding is Coding.FP8 or self._second is not None:
            self._type = ov.Type.f8e4m3
        else:
            self._type = ov.Type.u4 if self._with_zeros else ov.Type.i4

    def inputs(self, hidden: Node) -> Node:
        """What the matrix is multiplied with: `hidden` [..., in], scaled, and in steps."""
        prequant = self._linear.prequant()
        factor = np.ones(1, np.float32) if prequant is None else prequant
        if factor.ndim > 1:
            # experts: each has scales of its own, for all tokens
            factor = factor[:, None]
        if self._step is not None:
            factor = factor / self._step
        if (factor != 1).any():
            hidden = ops.multiply(hidden, float32(factor))
        if self._step is None:
            return hidden
        if self._linear.coding is Coding.INT8:
            return ops.clamp(ops.round(hidden, "half_to_even"), -128.0, 127.0)
        return float8(hidden)

    def matrix(self, rows: slice = ALL) -> Node:
        """The weights float32 [(experts,) out, in], or some of their rows."""
        *experts, count, columns = self._linear.shape
        count = len(range(*rows.indices(count)))
        content, scales, zeros = self._read(rows)
        # A group of inputs has an axis of its own where an output has several.
        groups = [scales.shape[1]] if scales.shape[1] > 1 else []
        sizes = [*experts, count, *groups, columns // scales.shape[1]]
        each = [*sizes[:-1], 1]
        weights = ops.convert(self._constant(content, sizes), np.float32)
        if zeros is not None:
            weights = ops.subtract(weights, float32((zeros + _UNSIGNED).reshape(each)))
        step = np.float32(1) if self._step is None else self._step
        weights = ops.multiply(weights, float32((scales * step).reshape(each)))
        return ops.reshape(weights, int64([*experts, count, columns]), False) if groups else weights

    def _read(self, rows: slice) -> tuple[memoryview | bytes, Array, Array | None]:
        """The bytes of the codes, the scales and the zeros, each [experts * out, groups]."""
        scales, zeros = [], []

        def pieces() -> Iterator[Array]:
            for place in self._linear.places(rows):
                found = self._codes(place)
                scales.append(found.scales)
                zeros.append(found.zeros)
                yield self._packed(found.values)

        content: memoryview | bytes
        if self._is_stored and rows == ALL:
            content = self._linear.tensors["weight"].data()
            deque(pieces(), maxlen=0)
        elif self._scratch is not None:
            content = self._scratch.keep(pieces())
        else:
            content = b"".join(piece.tobytes() for piece in pieces())
        found = [each for each in zeros if each is not None]
        return content, np.concatenate(scales), np.concatenate(found) if found else None

    @property
    def _is_stored(self) -> bool:
        """Whether the checkpoint's bytes are the graph's."""
        whole = self._linear.coding in (Coding.INT8, Coding.FP8)
        return whole and not self._linear.loader_bits

    def _codes(self, place: Place) -> Codes:
        if self._second is None:
            return self._linear.codes(place)
        wide = self._linear.codes(place).weights()
        return Codes(codes.fp8(wide / self._second), np.full((len(wide), 1), self._second))

    def _packed(self, values: Array) -> Array:
        """The codes as the graph has them: of 4 bits two neighbours in a byte, the first low."""
        if self._type not in (ov.Type.i4, ov.Type.u4):
            return values
        nibbles = ((values + _UNSIGNED) if self._with_zeros else values).view(np.uint8) & 0x0F
        packed: Array = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
        return packed

    def _constant(self, content: memoryview | bytes, shape: list[int]) -> Node:
        stored = ov.Tensor(np.frombuffer(content, np.uint8), shape, self._type)
        constant = ops.constant(stored, shared_memory=isinstance(content, memoryview))
        constant.set_friendly_name(f"{self._linear.module}.weight")
        return constant


def float8(states: Node) -> Node:
    """`states` rounded to the numbers of float8 e4m3, in float32 arithmetic.

    Adding 2^20 times a number's own magnitude leaves it the bits that float8 has, and those of the
    smallest normal number where it is smaller. (Convert to float8 does it too, at three times
    the cost; ties may go either way here.)
    """
    states = ops.clamp(states, -_LARGEST, _LARGEST)
    # 1.5 keeps small negative numbers from the finer steps below a power of two.
    magnitudes = ops.maximum(ops.abs(states), float32(1.5 * 2.0**-6))
    large = ops.multiply(magnitudes, float32(2.0**20))
    return ops.subtract(ops.add(states, large), large)
