"""What ModelOpt found, read off a model that it calibrated.

The names are ModelOpt 0.47's (`torch/quantization/nn/modules/tensor_quantizer.py`); none of its
code is needed to read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from builder.calibration import Calibration, LinearCalibration
from builder.dtypes import Array
from builder.errors import ModelError
from builder.source.hf_quantization import Format

_FP8, _FP4 = (4, 3), (2, 1)


def extract(model: Any, smoothings: Mapping[str, Any]) -> Calibration:
    """The calibration of a torch model that ModelOpt's `quantize` has just returned.

    `smoothings` are, by module, the float32 factors [in] that the weights were multiplied with.
    To be called before an export, which changes the model. Raises ModelError for a format that has
    no place in a TensorRT-LLM checkpoint.
    """
    linears, kv_cache, kv_amax = {}, None, {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight_quantizer", None)
        if weight is not None and _enabled(weight):
            linears[name] = _linear(name, module, smoothings.get(name))
        if found := _kv(module):
            kv_cache, pair = found
            kv_amax[layer_of(name)] = pair
    return Calibration(
        dtype=str(model.dtype).removeprefix("torch."),
        linears=linears,
        kv_cache=kv_cache,
        kv_amax=kv_amax,
    )


def _linear(name: str, module: Any, smoothing: Any) -> LinearCalibration:
    stages = list(_stages(module.weight_quantizer))
    inputs = module.input_quantizer
    kinds = (
        *((stage.num_bits, bool(stage.block_sizes)) for stage in stages),
        inputs.num_bits if inputs.is_enabled else None,
    )
    if kinds not in _FORMATS:
        raise ModelError(
            f"{name} was calibrated for a format that TensorRT-LLM's checkpoint doesn't have",
            found=f"weights {kinds[:-1]}, inputs {kinds[-1]}",
            do="choose one of trtbuild recipes",
        )
    format = _FORMATS[kinds]
    one_scale = format in (Format.FP8, Format.NVFP4)
    scale = getattr(inputs, "_pre_quant_scale", None)
    return LinearCalibration(
        format=format,
        group_size=stages[0].block_sizes[-1] if stages[0].block_sizes else 0,
        weight_amax=_array(stages[0].export_amax()) if one_scale else None,
        input_amax=_array(inputs.export_amax()) if inputs.is_enabled else None,
        pre_quant_scale=None if scale is None else _array(scale).reshape(-1),
        smoothing=None if smoothing is None else _array(smoothing).reshape(-1),
    )


_FORMATS = {
    ((_FP8, False), _FP8): Format.FP8,
    ((8, False), 8): Format.INT8,
    ((4, True), None): Format.INT4,
    ((4, True), (_FP8, False), _FP8): Format.W4A8,
    ((_FP4, True), _FP4): Format.NVFP4,
}
"""By the weights' bits, and whether in blocks, of each stage, then by the inputs' bits."""


def _stages(quantizer: Any) -> Iterator[Any]:
    """A quantizer, or those that a sequential one is made of."""
    yield from (quantizer if hasattr(quantizer, "__len__") else [quantizer])


def _enabled(quantizer: Any) -> bool:
    return any(stage.is_enabled for stage in _stages(quantizer))


def _kv(module: Any) -> tuple[str, tuple[float, float]] | None:
    """The format of an attention's KV cache, and the largest key and value."""
    key, value = (getattr(module, f"{each}_bmm_quantizer", None) for each in "kv")
    if key is None or value is None or not key.is_enabled or key.amax is None:
        return None
    kind = {_FP8: "FP8", 8: "INT8"}[key.num_bits]
    return kind, (float(_array(key.export_amax())), float(_array(value.export_amax())))


def layer_of(name: str) -> int:
    """The layer of a module, the first number of its name."""
    return next(int(part) for part in name.split(".") if part.isdigit())


def _array(tensor: Any) -> Array:
    found: Array = np.squeeze(tensor.detach().float().cpu().numpy())
    return found.astype(np.float32)
