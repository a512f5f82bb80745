"""A linear of a checkpoint as the matrix that it stands for, whatever form it is stored in.

The tensors that a linear has tell its form, not the config's one algorithm, so checkpoints of
mixed precision are nothing special. Forms: TensorRT-LLM 1.2, `quantization/layers.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from builder import codes, weight_only
from builder.dtypes import FLOATS, NUMPY, Array
from builder.errors import ArtifactError
from builder.safetensors_file import ALL, StoredTensor

Matrix = npt.NDArray[np.float32]

BLOCK_NUMBERS = 1 << 22
"""How many weights are computed at once."""

_ROLES = (
    "weight",
    "weights_scaling_factor",
    "weights_scaling_factor_2",
    "activation_scaling_factor",
    "prequant_scaling_factor",
    "zero",
)
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_FP4_VALUES = np.concatenate([_FP4, -_FP4])


class Coding(Enum):
    """How the weights of a linear are kept."""

    PLAIN = "unquantized"
    INT8 = "INT8"
    INT4 = "INT4"
    FP8 = "FP8"
    NVFP4 = "NVFP4"


class Place(NamedTuple):
    """Which expert (`...` of a linear without experts) and which rows."""

    expert: int | EllipsisType
    rows: slice


class Codes(NamedTuple):
    """weight = (code - zero) * scale, with a scale and a zero for each group of inputs."""

    values: Array
    """[rows, in]: int8, float8, or float32 for FP4's numbers and unquantized weights."""
    scales: Matrix
    """[rows, groups], of one group where an output has one scale."""
    zeros: Matrix | None = None
    """[rows, groups], None for nothing."""

    def weights(self) -> Matrix:
        """float32 [rows, in]."""
        grouped = self.values.astype(np.float32).reshape(*self.scales.shape, -1)
        if self.zeros is not None:
            grouped -= self.zeros[..., None]
        grouped *= self.scales[..., None]
        return grouped.reshape(self.values.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedLinear:
    """A linear by its tensors.

    `tensors` are by role (`weight`, `weights_scaling_factor`, …). `loader_bits` isn't 0 where the
    weights are plain and TensorRT-LLM's loader quantizes them.
    """

    module: str
    coding: Coding
    tensors: Mapping[str, StoredTensor]
    loader_bits: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """[(experts,) out, in]."""
        *experts, rows, columns = self.tensors["weight"].shape
        if self.coding is Coding.INT4 and not self.loader_bits:
            return (*experts, 2 * rows, columns)
        return (*experts, rows, columns * (2 if self.coding is Coding.NVFP4 else 1))

    @property
    def rounds_twice(self) -> bool:
        """Whether the 4-bit weights are rounded again, to FP8 (W4A8_AWQ)."""
        return self.coding is Coding.INT4 and "weights_scaling_factor_2" in self.tensors

    def number(self, role: str) -> np.float32 | None:
        """A tensor that is a single number; None where there is none."""
        found = self.tensors.get(role)
        return None if found is None else np.float32(found.numpy().reshape(-1)[0])

    def prequant(self, expert: int | EllipsisType = ...) -> Matrix | None:
        """float32 [in]: what the inputs are multiplied with; None for nothing."""
        found = self.tensors.get("prequant_scaling_factor")
        return None if found is None else found.numpy()[expert].astype(np.float32)

    def places(self, rows: slice = ALL) -> Iterator[Place]:
        """Pieces of some rows, in order, each small enough to be computed at once."""
        *experts, count, columns = self.shape
        start, stop, _ = rows.indices(count)
        step = max(2, BLOCK_NUMBERS // columns // 2 * 2)
        for expert in range(experts[0]) if experts else (...,):
            for begin in range(start, stop, step):
                yield Place(expert, slice(begin, min(begin + step, stop)))

    def codes(self, place: Place) -> Codes:
        """A piece as it is stored, or as the loader makes it. Of INT4, rows come in pairs."""
        stored = self.tensors["weight"]
        if self.loader_bits:
            wide = stored.numpy()[place.expert][place.rows].astype(np.float32)
            return Codes(*weight_only.quantized(wide, self.loader_bits, stored.dtype))
        values, scales = self._values(place), self._scales(place)
        if "zero" not in self.tensors:
            return Codes(values, scales)
        added = self.tensors["zero"].numpy()[place.expert].T[place.rows].astype(np.float32)
        return Codes(values, scales, np.divide(-added, scales, out=added, where=scales != 0))

    def weights(self, place: Place) -> Matrix:
        """float32 [rows, in]: what the scaled inputs are multiplied with."""
        wide = self.codes(place).weights()
        second = self.number("weights_scaling_factor_2")
        if self.rounds_twice and second is not None:
            wide = codes.fp8(wide / second).astype(np.float32) * second
        return wide

    def _values(self, place: Place) -> Array:
        expert, rows = place
        stored: Array = self.tensors["weight"].numpy()[expert]
        if self.coding is Coding.PLAIN:
            return stored[rows].astype(np.float32)
        if self.coding is Coding.FP8:
            # older writers say int8
            return stored[rows].view(NUMPY["float8_e4m3fn"])
        if self.coding is Coding.INT4:
            pairs = stored[rows.start // 2 : rows.stop // 2]
            values: Array = np.stack([(pairs << 4) >> 4, pairs >> 4], axis=1)
            return values.reshape(-1, pairs.shape[1])
        if self.coding is Coding.NVFP4:
            nibbles = np.stack([stored[rows] & 0x0F, stored[rows] >> 4], axis=2)
            values = _FP4_VALUES[nibbles]
            return values.reshape(len(nibbles), -1)
        return stored[rows]

    def _scales(self, place: Place) -> Matrix:
        expert, rows = place
        count = rows.stop - rows.start
        if self.coding is Coding.PLAIN:
            return np.ones((count, 1), np.float32)
        stored: Array = self.tensors["weights_scaling_factor"].numpy()
        if self.coding is Coding.FP8:
            each = stored.reshape(-1).astype(np.float32)
            # one scale may be all experts'
            scale = each[expert] if each.size > 1 else each[0]
            return np.full((count, 1), scale, np.float32)
        found = stored[expert][rows].astype(np.float32).reshape(count, -1)
        second = self.number("weights_scaling_factor_2")
        return found if self.coding is not Coding.NVFP4 or second is None else found * second


def coded_linear(
    config: Mapping[str, Any], tensors: Mapping[str, StoredTensor], module: str
) -> CodedLinear:
    """The linear `module` of a checkpoint with this config.

    Raises ArtifactError for tensors that make no linear known here.
    """
    found = {role: tensors[name] for role in _ROLES if (name := f"{module}.{role}") in tensors}
    coding = _coding(module, found)
    bits = weight_only.bits(module, config.get("quantization") or {})
    if coding is not Coding.PLAIN or not bits:
        return CodedLinear(module=module, coding=coding, tensors=found)
    made = Coding.INT8 if bits == 8 else Coding.INT4
    return CodedLinear(module=module, coding=made, tensors=found, loader_bits=bits)


def dequantized(
    config: Mapping[str, Any], tensors: Mapping[str, StoredTensor], module: str, rows: slice = ALL
) -> Matrix:
    """float32 [(experts,) out, in]: what the linear's unscaled inputs are multiplied with, or some
    of its rows, an even number from an even one.

    The scales of the inputs are in it, their rounding isn't. `config` is the checkpoint's. Raises
    ArtifactError for tensors that make no linear known here.
    """
    linear = coded_linear(config, tensors, module)
    *experts, _, columns = linear.shape
    parts = []
    for place in linear.places(rows):
        part, scale = linear.weights(place), linear.prequant(place.expert)
        parts.append(part if scale is None else part * scale)
    whole: Matrix = np.concatenate(parts).reshape(*experts, -1, columns)
    return whole


def _coding(module: str, tensors: Mapping[str, StoredTensor]) -> Coding:
    weight, scale = tensors.get("weight"), tensors.get("weights_scaling_factor")
    if weight is not None and scale is None and weight.dtype in FLOATS and len(tensors) == 1:
        return Coding.PLAIN
    if weight is not None and scale is not None and len(weight.shape) > 1:
        *experts, rows, _ = weight.shape
        single = scale.shape in ((), (1,), (*experts, 1))
        if single and weight.dtype in ("float8_e4m3fn", "int8"):
            return Coding.FP8
        if weight.dtype == "int8" and scale.shape == (*experts, rows):
            return Coding.INT8
        if weight.dtype == "int8" and scale.shape[:-1] == (*experts, 2 * rows):
            return Coding.INT4
        if weight.dtype == "uint8" and scale.dtype == "float8_e4m3fn":
            return Coding.NVFP4
    had = (f"{role} {each.dtype} {list(each.shape)}" for role, each in tensors.items())
    raise ArtifactError(
        f"the tensors of {module} make no linear that is known here",
        found=", ".join(had) or "none",
        do="make the checkpoint again",
    )
