"""What ModelOpt raises, or doesn't notice, as errors of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from builder.calibration import Calibration
from builder.errors import LimitError, ModelError
from quantize.recipes import Recipe

_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What ModelOpt raises for a model that it can't do."""


@contextmanager
def failures_told(recipe: Recipe | None) -> Iterator[None]:
    """Turn what ModelOpt raises into an error of ours."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise LimitError(
            "the GPU's memory ran out while calibrating",
            found=_first_line(error),
            do="choose a smaller --batch-size or --max-length",
        ) from error
    except _FAILURES as error:
        least = re.search(r"minimum achievable effective bits is ([\d.]+\d)", str(error))
        if least:
            raise LimitError(
                "the mix of formats can't be that small",
                found=f"at least {float(least[1]):.2f} bits per weight",
                do=f"choose --bits {float(least[1]) + 0.01:.2f} or more",
            ) from error
        what = "export this model" if recipe is None else f"calibrate this model for {recipe.name}"
        raise ModelError(f"ModelOpt can't {what}", found=_first_line(error)) from error


def require_calibrated(model: Any) -> None:
    """Raise ModelError for a linear whose inputs no calibration text has reached."""
    for name, module in model.named_modules():
        inputs = getattr(module, "input_quantizer", None)
        if inputs is None or not inputs.is_enabled or not hasattr(module, "weight_quantizer"):
            continue
        if inputs.amax is None:
            raise ModelError(
                "a linear layer has seen no calibration text",
                found=name,
                do="calibrate with more --samples: an expert may be chosen rarely",
            )


def require_finite(found: Calibration) -> None:
    for name, linear in found.linears.items():
        known = (linear.weight_amax, linear.input_amax, linear.pre_quant_scale, linear.smoothing)
        if not all(np.isfinite(array).all() for array in known if array is not None):
            raise ModelError(
                "the model computes numbers that are NaN or infinite",
                found=f"at {name}",
                do="check its weights, or choose --dtype bfloat16 or float32",
            )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
