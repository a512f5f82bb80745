"""A calibration put back into a plain torch model, which then is as ModelOpt left it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from builder.calibration import Calibration, LinearCalibration
from quantize.extraction import layer_of
from quantize.modelopt.choices import cache_entry
from quantize.needs import FORMATS
from quantize.quiet import quiet
from quantize.recipes import RECIPES

_RECIPE_OF = {format: RECIPES[name] for name, format in FORMATS.items()}


def impose(model: Any, found: Calibration) -> None:
    """Quantize a plain transformers model in place as it was when `found` was found.

    The opposite of extracting: nothing is computed of any text.
    """
    import torch

    with quiet():
        import modelopt.torch.quantization as mtq
        from modelopt.torch.quantization import model_calib

        mtq.quantize(model, {"quant_cfg": list(_entries(found)), "algorithm": None})
        modules = dict(model.named_modules())
        with torch.no_grad():
            for name, linear in found.linears.items():
                _smooth(modules[name], linear)
            model_calib.max_calibrate(model, None)
            for name, linear in found.linears.items():
                _set(modules[name].input_quantizer, linear.input_amax, modules[name].weight)
            for name, module in modules.items():
                if hasattr(module, "k_bmm_quantizer") and module.k_bmm_quantizer.is_enabled:
                    layer = layer_of(name)
                    weight = next(module.parameters())
                    for each, amax in zip("kv", found.kv_amax[layer], strict=True):
                        _set(getattr(module, f"{each}_bmm_quantizer"), amax, weight)


def _entries(found: Calibration) -> Iterator[dict[str, Any]]:
    """ModelOpt's settings of exactly the quantizers that the calibration names."""
    yield {"quantizer_name": "*", "enable": False}
    for name, linear in found.linears.items():
        recipe = _RECIPE_OF[linear.format]
        weight = [each.attributes(linear.group_size or None) for each in recipe.weight]
        chosen = weight if len(weight) > 1 else weight[0]
        yield {"quantizer_name": f"{name}.weight_quantizer", "cfg": chosen}
        if recipe.input is not None:
            inputs = recipe.input.attributes()
            yield {"quantizer_name": f"{name}.input_quantizer", "cfg": inputs}
    if found.kv_cache:
        yield cache_entry("fp8" if found.kv_cache == "FP8" else "int8")


def _smooth(module: Any, linear: LinearCalibration) -> None:
    import torch

    if linear.pre_quant_scale is None:
        return
    weight = module.weight
    scale = torch.from_numpy(np.array(linear.pre_quant_scale)).to(weight.device, weight.dtype)
    module.input_quantizer._enable_pre_quant_scale = True
    module.input_quantizer.pre_quant_scale = scale
    if linear.smoothing is not None:
        factors = torch.from_numpy(np.array(linear.smoothing)).to(weight.device)
        weight.copy_((weight * factors[None, :]).to(weight.dtype))


def _set(quantizer: Any, amax: Any, weight: Any) -> None:
    import torch

    if amax is not None:
        quantizer.amax = torch.tensor(np.asarray(amax, np.float32)).to(weight.device, weight.dtype)
