"""The factors that ModelOpt multiplies weights with, which it doesn't keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

Smoothings = dict[str, Any]


@contextmanager
def recorded(model: Any, state: Path | None) -> Iterator[Smoothings]:
    """The float32 factors that ModelOpt multiplies weights with meanwhile, by module.

    It keeps their inverse only, rounded to the weights' dtype. With `state` they are kept there
    too: of layers that were done before a kill, ModelOpt doesn't multiply again.
    """
    import torch
    from modelopt.torch.quantization import model_calib

    names = {id(module): name for name, module in model.named_modules()}
    smoothings: Smoothings = {}
    folder = state / "smoothings" if state else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder.glob("[!.]*.npy")
        smoothings |= {file.stem: torch.from_numpy(np.load(file)) for file in kept}
    apply = model_calib._apply_weight_pre_quant_scale

    def recording(linear: Any, factors: Any) -> None:
        if model_calib._ENABLE_FOLDING_PQS_TO_WEIGHTS:
            name = names[id(linear)]
            smoothings[name] = factors.detach().float().cpu()
            if folder:
                partial = folder / f".{name}.partial.npy"
                np.save(partial, smoothings[name].numpy())
                partial.replace(folder / f"{name}.npy")
        apply(linear, factors)

    model_calib._apply_weight_pre_quant_scale = recording
    try:
        yield smoothings
    finally:
        model_calib._apply_weight_pre_quant_scale = apply
