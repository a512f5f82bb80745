"""A model whose weights are plain, seen as quantized: by what a calibration found of it.

The arithmetic is ModelOpt 0.47's, step by step with its roundings (`torch/export/quant_utils.py`,
`torch/quantization/qtensor/nvfp4_tensor.py`), so that the codes are those of its own export.
Linears that are one tensor in TensorRT-LLM share their numbers, as its
`preprocess_linear_fusion` has it. Nothing is read before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from builder import codes, families
from builder.calibration import Calibration, LinearCalibration
from builder.checkpoint_config import pretrained_config
from builder.dtypes import NUMPY, Array
from builder.errors import LimitError, ModelError
from builder.families import Expected
from builder.mapping import Layout
from builder.quantized_shapes import is_linear
from builder.safetensors_file import ALL, BLOCK_BYTES
from builder.source.hf_quantization import Format, Quantization
from builder.source.model import Computed, Source, Tensor
from builder.source.quantized_linear import QuantizedLinear

Linears = dict[str, LinearCalibration]
Members = Iterator[tuple[str, Tensor]]

_ONE_SCALE = (Format.FP8, Format.NVFP4)
"""Formats in which joined linears, and a pair of gate and gated, have one scale."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Weight:
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

    def rows(self, rows: slice) -> Array:
        """Some outputs' weights, float32."""
        dtype = NUMPY[self.dtype]
        if self.transposed:
            block = np.ascontiguousarray(self.tensor.rows(ALL).T[rows])
        else:
            block = self.tensor.rows(rows)
        wide = block.astype(dtype).astype(np.float32)
        if self.smoothing is not None:
            wide = (wide * self.smoothing).astype(dtype).astype(np.float32)
        if self.rescaled is not None:
            before, after = self.rescaled
            wide = (wide * before / after).astype(dtype).astype(np.float32)
        return wide

    def largest(self) -> np.float32:
        """The largest magnitude of all; reads the whole weight."""
        rows, columns = self.shape
        step = max(1, BLOCK_BYTES // (4 * columns))
        found = [np.abs(self.rows(slice(at, at + step))).max() for at in range(0, rows, step)]
        return np.float32(max(found))


def calibrated(source: Source, calibration: Calibration) -> Source:
    """The source with the linears that the calibration names quantized.

    Raises ModelError for one that the model doesn't have, LimitError for linears that TensorRT-LLM
    joins but that were calibrated for different formats.
    """
    family = families.of(source.config.architecture)
    found = {
        family.plain_name(f"{name}.weight"): linear for name, linear in calibration.linears.items()
    }
    expected = _linears(source, calibration.dtype)
    turned = {
        group.source: group.transposed
        for tensor in expected
        for part in tensor.parts
        for group in part
    }
    if strange := [name for name in found if name not in turned or name not in source.tensors]:
        raise ModelError(
            "the calibration is of another model",
            found=f"{strange[0]}, which {source.path} doesn't have as a linear layer",
            do="calibrate this model",
        )
    tensors = dict(source.tensors)
    for name, shared in _shared(expected, found, calibration.dtype).items():
        own = found[name]
        weight = _Weight(
            tensor=source.tensors[name],
            transposed=turned[name],
            dtype=calibration.dtype,
            smoothing=own.smoothing,
            rescaled=_rescaled(own.pre_quant_scale, shared.pre_quant_scale),
        )
        tensors[name] = _linear(name, weight, shared)
    return replace(
        source,
        tensors=tensors,
        quantization=_overall(calibration),
        kv_scales={
            layer: tuple(_number(np.float32(amax) / _KV_BOUND[calibration.kv_cache]) for amax in kv)
            for layer, kv in calibration.kv_amax.items()
            if calibration.kv_cache
        },
    )


def stand_in(
    source: Source, format: Format, *, group_size: int = 0, kv_cache: str | None = None
) -> Calibration:
    """A calibration with invented numbers, to see before a real one what can't be written.

    All linears are in it that TensorRT-LLM can have quantized, but for experts that are stored in
    one tensor, which ModelOpt leaves as they are.
    """
    one, dtype = np.ones((), np.float32), source.config.dtype
    linears = {}
    for tensor in _linears(source, dtype):
        for name, shape in tensor.sources.items():
            if len(shape) == 2:
                linears[name.removesuffix(".weight")] = LinearCalibration(
                    format=format,
                    group_size=group_size,
                    weight_amax=one if format in _ONE_SCALE else None,
                    input_amax=one,
                )
    return Calibration(dtype=dtype, linears=linears, kv_cache=kv_cache)


def _linears(source: Source, dtype: str) -> list[Expected]:
    """The checkpoint's tensors that may be quantized."""
    config = pretrained_config(source.config, dtype, Layout())
    return [
        tensor
        for tensor in families.of(source.config.architecture).expected(config)
        if is_linear(tensor.name, next(iter(tensor.sources.values())))
    ]


def _shared(
    expected: Iterable[Expected], found: Mapping[str, LinearCalibration], dtype: str
) -> dict[str, LinearCalibration]:
    """What each linear has when those that belong together share it."""
    shared: dict[str, LinearCalibration] = {}
    pairs: dict[str, list[str]] = {}
    for tensor in expected:
        for part in tensor.parts:
            names = list(dict.fromkeys(group.source for group in part))
            joined = {name: found[name] for name in names if name in found}
            shared |= _with_one_scale(_with_one_prequant(tensor.name, joined, dtype))
            stem, _, last = tensor.name.removesuffix(".weight").rpartition(".")
            if last in ("fc", "gate") and not tensor.experts:
                pairs.setdefault(stem, []).extend(joined)
    for names in pairs.values():
        pair = {name: shared[name] for name in names}
        if all(linear.format in _ONE_SCALE for linear in pair.values()):
            shared |= _with_one_scale(pair)
    return shared


def _with_one_prequant(tensor: str, joined: Linears, dtype: str) -> Linears:
    """The inputs of joined linears are scaled alike: by the mean of their scales."""
    kinds = {(linear.format, linear.group_size) for linear in joined.values()}
    if len(kinds) > 1:
        raise LimitError(
            f"{tensor} joins linears that TensorRT-LLM has in one format only",
            found=", ".join(f"{name} {linear.format.value}" for name, linear in joined.items()),
        )
    scales = [linear.pre_quant_scale for linear in joined.values()]
    if len(joined) < 2 or any(scale is None for scale in scales):
        return joined
    mean = np.stack([np.asarray(scale) for scale in scales]).mean(axis=0, dtype=np.float32)
    mean = mean.astype(NUMPY[dtype]).astype(np.float32)
    return {
        name: linear
        if np.array_equal(np.asarray(linear.pre_quant_scale), mean)
        # What a search found of the weights holds no longer.
        else replace(linear, pre_quant_scale=mean, weight_amax=None)
        for name, linear in joined.items()
    }


def _with_one_scale(joined: Linears) -> Linears:
    """One number for the inputs, and in some formats one for the weights: the largest."""
    result = {}
    for name, linear in joined.items():
        inputs = _largest(each.input_amax for each in joined.values())
        weights = linear.weight_amax
        if linear.format in _ONE_SCALE:
            weights = _largest(each.weight_amax for each in joined.values())
        result[name] = replace(linear, input_amax=inputs, weight_amax=weights)
    return result


def _largest(numbers: Iterable[Array | None]) -> Array | None:
    known = [number for number in numbers if number is not None]
    return np.asarray(np.max(known), np.float32) if known else None


def _rescaled(own: Array | None, shared: Array | None) -> tuple[Array, Array] | None:
    if own is None or shared is None or np.array_equal(own, shared):
        return None
    return own, shared


def _overall(calibration: Calibration) -> Quantization | None:
    kinds = {(linear.format, linear.group_size) for linear in calibration.linears.values()}
    if not kinds and calibration.kv_cache is None:
        return None
    format, group_size = next(iter(kinds)) if len(kinds) == 1 else (Format.MIXED, 0)
    return Quantization(format=format, group_size=group_size, kv_cache=calibration.kv_cache)


def _linear(name: str, weight: _Weight, found: LinearCalibration) -> QuantizedLinear:
    return QuantizedLinear(
        name=name,
        quantization=Quantization(format=found.format, group_size=found.group_size),
        shape=weight.shape,
        members=dict(_MEMBERS[found.format](weight, found)),
    )


def _fp8(weight: _Weight, found: LinearCalibration) -> Members:
    scale = codes.scale(_known(found.weight_amax), codes.FP8_LARGEST)
    yield "weight", _rows(weight, "float8_e4m3fn", lambda wide, _: codes.fp8(wide / scale))
    yield "weight_scale", _number(scale)
    yield "input_scale", _number(codes.scale(_known(found.input_amax), codes.FP8_LARGEST))


def _int8(weight: _Weight, found: LinearCalibration) -> Members:
    def scales(wide: Array, rows: slice) -> Array:
        return codes.scale(_amax(wide, found, rows, wide.shape[1])[:, 0], codes.INT8_LARGEST)

    yield "weight", _rows(weight, "int8", lambda wide, r: codes.int8(wide, scales(wide, r)))
    yield "weight_scale", _rows(weight, "float32", scales, shape=weight.shape[:1])
    yield "input_scale", _number(codes.scale(_known(found.input_amax), codes.INT8_LARGEST))
    yield from _prequant(weight, found)


def _int4(weight: _Weight, found: LinearCalibration) -> Members:
    rows, columns = weight.shape

    def scales(wide: Array, rows: slice) -> Array:
        return codes.scale(_amax(wide, found, rows, found.group_size), codes.INT4_LARGEST)

    def pairs(chosen: slice) -> Array:
        first, last, _ = chosen.indices(rows // 2)
        both = slice(2 * first, 2 * last)
        wide = weight.rows(both)
        return codes.int4_pairs(wide, scales(wide, both))

    yield "weight", Computed(dtype="int8", shape=(rows // 2, columns), of=pairs)
    groups = (rows, columns // found.group_size)
    yield "weight_scale", _rows(weight, "float32", scales, shape=groups)
    yield from _prequant(weight, found)


def _w4a8(weight: _Weight, found: LinearCalibration) -> Members:
    yield from _int4(weight, found)
    yield (
        "weight_scale_2",
        Computed(
            dtype="float32",
            shape=(),
            of=lambda _: codes.scale(np.asarray([weight.largest()]), codes.FP8_LARGEST),
        ),
    )
    yield "input_scale", _number(codes.scale(_known(found.input_amax), codes.FP8_LARGEST))


def _nvfp4(weight: _Weight, found: LinearCalibration) -> Members:
    rows, columns = weight.shape
    whole = codes.scale(_known(found.weight_amax), codes.FP4_LARGEST * codes.FP8_LARGEST)

    def packed(wide: Array, _: slice) -> Array:
        return codes.fp4_pairs(wide, codes.nvfp4_scales(wide, whole), whole)

    def scales(wide: Array, _: slice) -> Array:
        return codes.nvfp4_scales(wide, whole)

    yield "weight", _rows(weight, "uint8", packed, shape=(rows, columns // 2))
    yield "weight_scale", _rows(weight, "float8_e4m3fn", scales, shape=(rows, columns // 16))
    yield "weight_scale_2", _number(whole)
    bound = codes.FP4_LARGEST * codes.FP8_LARGEST
    yield "input_scale", _number(codes.scale(_known(found.input_amax), bound))


def _prequant(weight: _Weight, found: LinearCalibration) -> Members:
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
_KV_BOUND = {"FP8": codes.FP8_LARGEST, "INT8": codes.INT8_LARGEST}


def _rows(
    weight: _Weight,
    dtype: str,
    of: codes.OfRows,
    shape: Sequence[int] | None = None,
) -> Computed:
    """A member that is computed row by row from the weight's rows."""
    rows = weight.shape[0]

    def run(chosen: slice) -> Array:
        first, last, _ = chosen.indices(rows)
        return of(weight.rows(slice(first, last)), slice(first, last))

    return Computed(dtype=dtype, shape=tuple(shape or weight.shape), of=run)


def _amax(wide: Array, found: LinearCalibration, rows: slice, group_size: int) -> Array:
    """[rows, groups]: the largest magnitude of each group, or what a search chose in its place."""
    if found.weight_amax is not None:
        return found.weight_amax.reshape(-1, wide.shape[1] // group_size)[rows]
    largest: Array = np.abs(wide).reshape(len(wide), -1, group_size).max(axis=2)
    return largest


def _number(value: np.float32 | Array) -> Computed:
    array = np.asarray(value, np.float32).reshape(1)
    return Computed(dtype="float32", shape=(), of=lambda _: array)


def _known(value: Array | None) -> Array:
    if value is None:
        raise ModelError("the calibration lacks a largest magnitude", do="calibrate again")
    return value
