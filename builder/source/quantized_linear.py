"""A quantized source's linear layers: each one tensor by its plain name, its scales within it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from builder.dtypes import FLOATS, Array
from builder.errors import ModelError
from builder.safetensors_file import ALL, StoredTensor
from builder.source.hf_quantization import Format, Quantization
from builder.source.model import Tensor


@dataclass(frozen=True)
class _Member:
    """One tensor of a quantized linear: what it may be, and its shape by the linear's.

    `dims` divide [out, in]: a dimension is out or in over a number, "g" standing for the group
    size; no dims is a single number, as [] or [1].
    """

    dtypes: tuple[str, ...]
    dims: tuple[tuple[str, int | str], ...] = ()
    optional: bool = False


_NUMBER = _Member(FLOATS)
_GPTQ_SCALES = {
    "qzeros": _Member(("int32",), (("in", "g"), ("out", 8))),
    "scales": _Member(FLOATS, (("in", "g"), ("out", 1))),
}
MEMBERS: Mapping[Format, Mapping[str, _Member]] = {
    Format.FP8: {
        "weight": _Member(("float8_e4m3fn",), (("out", 1), ("in", 1))),
        "weight_scale": _NUMBER,
        "input_scale": _NUMBER,
    },
    Format.NVFP4: {
        "weight": _Member(("uint8",), (("out", 1), ("in", 2))),
        "weight_scale": _Member(("float8_e4m3fn",), (("out", 1), ("in", 16))),
        "weight_scale_2": _NUMBER,
        "input_scale": _NUMBER,
    },
    Format.INT4: {
        "weight": _Member(("uint8", "int8"), (("out", 2), ("in", 1))),
        "weight_scale": _Member(FLOATS, (("out", 1), ("in", "g"))),
        "pre_quant_scale": _Member(FLOATS, (("in", 1),), optional=True),
    },
    Format.AWQ: {"qweight": _Member(("int32",), (("in", 1), ("out", 8))), **_GPTQ_SCALES},
    Format.GPTQ: {
        "qweight": _Member(("int32",), (("in", 8), ("out", 1))),
        **_GPTQ_SCALES,
        "g_idx": _Member(("int32",), (("in", 1),), optional=True),
    },
}
"""What a linear consists of, in each format, by the last part of the names; the weight first."""

_KV_SCALE = re.compile(r"\D*(\d+)\..*\.[kv]_scale")


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedLinear:
    """A linear layer's weight, of logical shape [out, in]; `members` by MEMBERS' names."""

    name: str
    quantization: Quantization
    shape: tuple[int, ...]
    members: Mapping[str, Tensor]
    dtype: str = "quantized"

    def rows(self, rows: slice = ALL) -> Array:
        """Not there: its elements are written as they are, not decoded."""
        raise NotImplementedError(self.name)

    def number(self, member: str) -> np.float32:
        """The value of a member that is a single number."""
        return np.float32(self.members[member].rows().reshape(-1)[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """A quantized source's tensors by plain name, and its KV cache's scales by layer."""

    tensors: Mapping[str, Tensor]
    kv_scales: Mapping[int, tuple[StoredTensor, ...]]


def gather(stored: Mapping[str, StoredTensor], found: Quantization) -> Gathered:
    """Put what belongs to a quantized linear together; all else stays as it is.

    Raises ModelError for a linear that lacks a member, or whose members don't fit one another, and
    where there is none.
    """
    kind = Format.GPTQ if found.format is Format.GPTQ_V2 else found.format
    members = MEMBERS[kind]
    first = next(iter(members))
    tensors: dict[str, Tensor] = dict(stored)
    for name, weight in stored.items():
        prefix, _, last = name.rpartition(".")
        if last != first or weight.dtype not in members[first].dtypes:
            continue
        own = {each: stored.get(f"{prefix}.{each}") for each in members}
        linear = QuantizedLinear(
            name=f"{prefix}.weight",
            quantization=found,
            shape=_logical_shape(weight, members[first]),
            members={each: tensor for each, tensor in own.items() if tensor is not None},
        )
        _check(linear, members)
        for each in linear.members:
            del tensors[f"{prefix}.{each}"]
        tensors[linear.name] = linear
    if not any(isinstance(tensor, QuantizedLinear) for tensor in tensors.values()):
        raise ModelError(
            f"the model is stated to be quantized ({found.format.value}), but no linear is",
            found=f"no {first} of {' or '.join(members[first].dtypes)}",
            do="export it again",
        )
    return Gathered(tensors=tensors, kv_scales=_kv_scales(tensors))


def _kv_scales(tensors: dict[str, Tensor]) -> dict[int, tuple[StoredTensor, ...]]:
    """Take the KV cache's scales out of the tensors."""
    scales: dict[int, tuple[StoredTensor, ...]] = {}
    for name, tensor in list(tensors.items()):
        match = _KV_SCALE.fullmatch(name)
        if match and isinstance(tensor, StoredTensor) and math.prod(tensor.shape) == 1:
            layer = int(match[1])
            scales[layer] = (*scales.get(layer, ()), tensor)
            del tensors[name]
    return scales


def _logical_shape(weight: StoredTensor, member: _Member) -> tuple[int, ...]:
    sizes = {
        side: length * packed
        for (side, packed), length in zip(member.dims, weight.shape, strict=False)
        if isinstance(packed, int)
    }
    return (sizes.get("out", 0), sizes.get("in", 0))


def _check(linear: QuantizedLinear, members: Mapping[str, _Member]) -> None:
    sides = dict(zip(("out", "in"), linear.shape, strict=True))
    for each, member in members.items():
        tensor = linear.members.get(each)
        if tensor is None:
            if not member.optional:
                _misfit(linear, f"no {each}")
            continue
        number = {"g": linear.quantization.group_size}
        dims = [(sides[side], number.get(str(by), by)) for side, by in member.dims]
        shape = tuple(length // int(by) for length, by in dims)
        whole = all(length % int(by) == 0 for length, by in dims)
        fits = tensor.shape == shape if dims else math.prod(tensor.shape) == 1
        if not (whole and fits and tensor.dtype in member.dtypes):
            _misfit(linear, f"{each} {tensor.dtype} {list(tensor.shape)}")


def _misfit(linear: QuantizedLinear, found: str) -> None:
    raise ModelError(
        f"the tensors of {linear.name.removesuffix('.weight')} don't make a quantized linear"
        f" ({linear.quantization.format.value})",
        found=found,
        do="export the model again, with static scales for each tensor",
    )
