"""A model whose weights are plain, seen as quantized: by what a calibration found of it.

Linears that are one tensor in TensorRT-LLM share their numbers, as ModelOpt 0.47's
`preprocess_linear_fusion` has it (`torch/export/quant_utils.py`). Nothing is read before it is
asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from builder import families
from builder.calibration import Calibration, LinearCalibration
from builder.checkpoint_config import pretrained_config
from builder.dtypes import NUMPY, Array
from builder.errors import LimitError, ModelError
from builder.families import Expected
from builder.mapping import Layout
from builder.quantized_shapes import is_linear
from builder.source.calibrated_linear import KV_LARGEST, Weight, calibrated_linear, number
from builder.source.hf_quantization import Format, Quantization
from builder.source.model import Source

Linears = dict[str, LinearCalibration]

_ONE_SCALE = (Format.FP8, Format.NVFP4)
"""Formats in which joined linears, and a pair of gate and gated, have one scale."""


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
        weight = Weight(
            tensor=source.tensors[name],
            transposed=turned[name],
            dtype=calibration.dtype,
            smoothing=own.smoothing,
            rescaled=_rescaled(own.pre_quant_scale, shared.pre_quant_scale),
        )
        tensors[name] = calibrated_linear(name, weight, shared)
    return replace(
        source,
        tensors=tensors,
        quantization=_overall(calibration),
        kv_scales={
            layer: tuple(number(np.float32(amax) / KV_LARGEST[calibration.kv_cache]) for amax in kv)
            for layer, kv in calibration.kv_amax.items()
            if calibration.kv_cache
        },
    )


def joined(source: Source, calibration: Calibration) -> list[list[str]]:
    """The modules that share their numbers in a checkpoint, in groups of two and more."""
    family = families.of(source.config.architecture)
    modules = {family.plain_name(f"{name}.weight"): name for name in calibration.linears}
    found = {name: calibration.linears[module] for name, module in modules.items()}
    groups = _groups(_linears(source, calibration.dtype), found)
    return [[modules[name] for name in names] for _, names in groups if len(names) > 1]


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
    shared = dict(found)
    for tensor, names in _groups(expected, found):
        group = {name: shared[name] for name in names}
        shared |= _with_one_scale(_with_one_prequant(tensor, group, dtype))
    return shared


def _groups(
    expected: Iterable[Expected], found: Mapping[str, LinearCalibration]
) -> Iterator[tuple[str, list[str]]]:
    """The linears that share their numbers, and the tensor that they become.

    First those that are one tensor, then, in some formats, gate and gated.
    """
    pairs: dict[str, list[str]] = {}
    for tensor in expected:
        for part in tensor.parts:
            names = [name for name in dict.fromkeys(each.source for each in part) if name in found]
            yield tensor.name, names
            stem, _, last = tensor.name.removesuffix(".weight").rpartition(".")
            if last in ("fc", "gate") and not tensor.experts:
                pairs.setdefault(stem, []).extend(names)
    for stem, names in pairs.items():
        if all(found[name].format in _ONE_SCALE for name in names):
            yield stem, names


def _with_one_prequant(tensor: str, group: Linears, dtype: str) -> Linears:
    """The inputs of joined linears are scaled alike: by the mean of their scales."""
    kinds = {(linear.format, linear.group_size) for linear in group.values()}
    if len(kinds) > 1:
        raise LimitError(
            f"{tensor} joins linears that TensorRT-LLM has in one format only",
            found=", ".join(f"{name} {linear.format.value}" for name, linear in group.items()),
        )
    scales = [linear.pre_quant_scale for linear in group.values()]
    if len(group) < 2 or any(scale is None for scale in scales):
        return group
    mean = np.stack([np.asarray(scale) for scale in scales]).mean(axis=0, dtype=np.float32)
    mean = mean.astype(NUMPY[dtype]).astype(np.float32)
    return {name: replace(linear, pre_quant_scale=mean) for name, linear in group.items()}


def _with_one_scale(group: Linears) -> Linears:
    """One number for the inputs, and in some formats one for the weights: the largest."""
    result = {}
    for name, linear in group.items():
        inputs = _largest(each.input_amax for each in group.values())
        weights = linear.weight_amax
        if linear.format in _ONE_SCALE:
            weights = _largest(each.weight_amax for each in group.values())
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
