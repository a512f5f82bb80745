"""One linear layer of a calibrated model: its members, computed from the weight's rows.

The arithmetic is ModelOpt 0.47's, step by step with its roundings (`torch/export/quant_utils.py`,
`torch/quantization/qtensor/nvfp4_tensor.py`), so that the codes are those of its own export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np

from builder import codes
from builder.calibration import LinearCalibration
from builder.dtypes import NUMPY, Array
from builder.errors import ModelError
from builder.safetensors_file import ALL, BLOCK_BYTES
from builder.source.hf_quantization import Format, Quantization
from builder.source.model import Computed, Tensor
from builder.source.quantized_linear import QuantizedLinear

Members = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weight:
    """A linear's weight [out, in] as it was while it was calibrated.

    `rescaled` are the inputs' scales before and after they were shared with other linears.
    """

    tensor: Tensor
    transposed: bool
    dtype: str
    smoothing: Array | None = None
    rescaled: tuple[Array, Array] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        rows, columns = self.tensor.shape
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def row_bytes(self) -> int:
        """What an output's weights take as float32."""
        return 4 * self.shape[1]

    def rows(self, rows: slice) -> Array:
        """Some outputs' weights, in `dtype`."""
        dtype = NUMPY[self.dtype]
        if self.transposed:
            block = np.ascontiguousarray(self.tensor.rows(ALL).T[rows])
        else:
            block = self.tensor.rows(rows)
        block = block.astype(dtype, copy=False)
        if self.smoothing is not None:
            block = (block.astype(np.float32) * self.smoothing).astype(dtype)
        if self.rescaled is not None:
            before, after = self.rescaled
            block = (block.astype(np.float32) * before / after).astype(dtype)
        return block

    def largest(self) -> np.float32:
        """The largest magnitude of all; reads the whole weight."""
        rows, columns = self.shape
        step = max(1, BLOCK_BYTES // (4 * columns))
        blocks = (self.rows(slice(at, at + step)) for at in range(0, rows, step))
        return np.float32(max(codes.amax(block, columns).max() for block in blocks))


class _Scales:
    """A weight's scales, by rows: found while its codes are computed and kept until asked for."""

    def __init__(self, weight: Weight, shape: tuple[int, ...], of: Callable[[Array], Array]):
        self._weight, self._shape, self._of = weight, shape, of
        self._lock = Lock()
        self._found: Array | None = None
        self._known = np.zeros(shape[0], bool)
        self._asked = False

    def member(self) -> Computed:
        """The tensor that they are."""
        return _computed(self._weight, "float32", self._shape, self._rows)

    def of(self, rows: slice, block: Array) -> Array:
        """Those of a block of the weight's rows."""
        scales = self._of(block)
        with self._lock:
            if not self._asked:
                if self._found is None:
                    self._found = np.empty(self._shape, np.float32)
                self._found[rows] = scales
                self._known[rows] = True
        return scales

    def _rows(self, rows: slice) -> Array:
        with self._lock:
            self._asked = True
            if self._found is not None and self._known[rows].all():
                scales = self._found[rows].copy()
                self._known[rows] = False
                if not self._known.any():
                    self._found = None
                return scales
        return self._of(self._weight.rows(rows))


def calibrated_linear(name: str, weight: Weight, found: LinearCalibration) -> QuantizedLinear:
    """The linear whose weight is that of the module `name`, quantized as was found."""
    return QuantizedLinear(
        name=name,
        quantization=Quantization(format=found.format, group_size=found.group_size),
        shape=weight.shape,
        members=dict(_MEMBERS[found.format](weight, found)),
    )


def _fp8(weight: Weight, found: LinearCalibration) -> Members:
    scale = codes.scale(_known(found.weight_amax), codes.FP8_LARGEST)
    yield "weight", _rows(weight, "float8_e4m3fn", lambda numbers: codes.fp8(numbers, scale))
    yield "weight_scale", number(scale)
    yield "input_scale", number(codes.scale(_known(found.input_amax), codes.FP8_LARGEST))


def _int8(weight: Weight, found: LinearCalibration) -> Members:
    def find(block: Array) -> Array:
        return codes.scale(codes.amax(block, weight.shape[1])[:, 0], codes.INT8_LARGEST)

    def numbers(rows: slice) -> Array:
        block = weight.rows(rows)
        return codes.int8(block, scales.of(rows, block))

    scales = _Scales(weight, weight.shape[:1], find)
    yield "weight", _computed(weight, "int8", weight.shape, numbers)
    yield "weight_scale", scales.member()
    yield "input_scale", number(codes.scale(_known(found.input_amax), codes.INT8_LARGEST))
    yield from _prequant(weight, found)


def _int4(weight: Weight, found: LinearCalibration) -> Members:
    rows, columns = weight.shape

    def find(block: Array) -> Array:
        return codes.scale(codes.amax(block, found.group_size), codes.INT4_LARGEST)

    def pairs(chosen: slice) -> Array:
        first, last, _ = chosen.indices(rows // 2)
        both = slice(2 * first, 2 * last)
        block = weight.rows(both)
        return codes.int4_pairs(block, scales.of(both, block))

    scales = _Scales(weight, (rows, columns // found.group_size), find)

    packed = Computed(
        dtype="int8", shape=(rows // 2, columns), of=pairs, row_bytes=2 * weight.row_bytes
    )
    yield "weight", packed
    yield "weight_scale", scales.member()
    yield from _prequant(weight, found)


def _w4a8(weight: Weight, found: LinearCalibration) -> Members:
    yield from _int4(weight, found)
    yield (
        "weight_scale_2",
        Computed(
            dtype="float32",
            shape=(),
            of=lambda _: codes.scale(np.asarray([weight.largest()]), codes.FP8_LARGEST),
        ),
    )
    yield "input_scale", number(codes.scale(_known(found.input_amax), codes.FP8_LARGEST))


def _nvfp4(weight: Weight, found: LinearCalibration) -> Members:
    rows, columns = weight.shape
    whole = codes.scale(_known(found.weight_amax), codes.FP4_LARGEST * codes.FP8_LARGEST)

    def packed(numbers: Array) -> Array:
        return codes.fp4_pairs(numbers, codes.nvfp4_scales(numbers, whole), whole)

    def scales(numbers: Array) -> Array:
        return codes.nvfp4_scales(numbers, whole)

    yield "weight", _rows(weight, "uint8", packed, shape=(rows, columns // 2))
    yield "weight_scale", _rows(weight, "float8_e4m3fn", scales, shape=(rows, columns // 16))
    yield "weight_scale_2", number(whole)
    bound = codes.FP4_LARGEST * codes.FP8_LARGEST
    yield "input_scale", number(codes.scale(_known(found.input_amax), bound))


def _prequant(weight: Weight, found: LinearCalibration) -> Members:
    if (scale := found.pre_quant_scale) is not None:
        yield (
            "pre_quant_scale",
            Computed(dtype="float32", shape=scale.shape, of=lambda rows: scale[rows]),
        )


_MEMBERS = {
    Format.FP8: _fp8,
    Format.INT8: _int8,
    Format.INT4: _int4,
    Format.W4A8: _w4a8,
    Format.NVFP4: _nvfp4,
}
KV_LARGEST = {"FP8": codes.FP8_LARGEST, "INT8": codes.INT8_LARGEST}


def _rows(
    weight: Weight, dtype: str, of: Callable[[Array], Array], shape: tuple[int, ...] | None = None
) -> Computed:
    """A member that is computed row by row from the weight's rows."""
    return _computed(weight, dtype, shape or weight.shape, lambda rows: of(weight.rows(rows)))


def _computed(
    weight: Weight, dtype: str, shape: tuple[int, ...], of: Callable[[slice], Array]
) -> Computed:
    """A member with as many rows as the weight, each of which takes one of the weight's."""

    def run(chosen: slice) -> Array:
        first, last, _ = chosen.indices(shape[0])
        return of(slice(first, last))

    return Computed(dtype=dtype, shape=shape, of=run, row_bytes=weight.row_bytes)


def number(value: np.float32 | Array) -> Computed:
    """A tensor that is one number."""
    array = np.asarray(value, np.float32).reshape(1)
    return Computed(dtype="float32", shape=(), of=lambda _: array)


def _known(value: Array | None) -> Array:
    if value is None:
        raise ModelError("the calibration lacks a largest magnitude", do="calibrate again")
    return value
