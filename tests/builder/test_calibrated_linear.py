"""Promise: a weight is read once for its codes and its scales, and either is right by itself."""

from __future__ import annotations

import numpy as np
import pytest

from builder.calibration import LinearCalibration
from builder.dtypes import NUMPY, Array
from builder.source.calibrated_linear import Weight, calibrated_linear
from builder.source.hf_quantization import Format
from builder.source.model import Computed
from builder.source.quantized_linear import QuantizedLinear

ROWS, COLUMNS = 30, 64
NUMBERS = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)
NUMBERS = NUMBERS.astype(NUMPY["bfloat16"])
LARGEST = {Format.INT8: 127, Format.INT4: 7}


class Counted:
    """A weight that counts how many of its rows were asked for."""

    def __init__(self, format: Format, group_size: int) -> None:
        self.rows_read = 0
        tensor = Computed(dtype="bfloat16", shape=NUMBERS.shape, of=self._rows)
        weight = Weight(tensor=tensor, transposed=False, dtype="bfloat16")
        found = LinearCalibration(
            format=format, group_size=group_size, input_amax=np.ones((), np.float32)
        )
        self.linear: QuantizedLinear = calibrated_linear("linear", weight, found)

    def _rows(self, rows: slice) -> Array:
        self.rows_read += len(NUMBERS[rows])
        return NUMBERS[rows]


def scales(format: Format, group_size: int) -> Array:
    groups = np.abs(NUMBERS.astype(np.float32)).reshape(ROWS, -1, group_size or COLUMNS)
    found: Array = groups.max(axis=2) / np.float32(LARGEST[format])
    return found if group_size else found[:, 0]


@pytest.mark.parametrize(("format", "group_size"), [(Format.INT8, 0), (Format.INT4, 16)])
def test_scales_that_follow_the_codes_cost_no_second_reading(
    format: Format, group_size: int
) -> None:
    counted = Counted(format, group_size)
    members = counted.linear.members
    each = 2 if format is Format.INT4 else 1
    for first in range(0, ROWS // each, 7):
        members["weight"].rows(slice(first, min(first + 7, ROWS // each)))
    parts = [members["weight_scale"].rows(slice(at, at + 10)) for at in (20, 0, 10)]
    assert np.array_equal(
        np.concatenate([parts[1], parts[2], parts[0]]), scales(format, group_size)
    )
    assert counted.rows_read == ROWS


@pytest.mark.parametrize(("format", "group_size"), [(Format.INT8, 0), (Format.INT4, 16)])
def test_scales_that_come_first_or_twice_are_the_same(format: Format, group_size: int) -> None:
    members = Counted(format, group_size).linear.members
    first = members["weight_scale"].rows()
    members["weight"].rows()
    assert np.array_equal(first, scales(format, group_size))
    assert np.array_equal(members["weight_scale"].rows(), first)


def test_numbers_too_small_to_divide_stay_codes() -> None:
    least = np.full((2, COLUMNS), 3e-45, np.float32)
    tensor = Computed(dtype="float32", shape=least.shape, of=lambda rows: least[rows])
    weight = Weight(tensor=tensor, transposed=False, dtype="float32")
    found = LinearCalibration(format=Format.INT8, input_amax=np.ones((), np.float32))
    with np.errstate(divide="ignore"):
        codes = calibrated_linear("linear", weight, found).members["weight"].rows()
    assert (codes == 127).all()
