"""A quantized linear's tensors in TensorRT-LLM's checkpoint, from a source's members.

Forms: TensorRT-LLM 1.2, `quantization/layers.py` (FP8Linear, FP4Linear,
WeightOnlyGroupwiseQuantLinear). FP8 and NVFP4 have one scale for joined parts; where a source's
parts have several, FP8 codes are taken anew for the largest, as upstream's own loader does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from builder import quantized_int4
from builder.dtypes import NUMPY, Array
from builder.errors import LimitError, ModelError
from builder.quantized_shapes import AWQ, Form, form, shapes
from builder.rank_linear import RankLinear, stored
from builder.safetensors_writer import Compute, PendingTensor, Segment
from builder.source.model import Computed, Tensor
from builder.source.quantized_linear import QuantizedLinear

_F8 = "float8_e4m3fn"


def pending(linear: RankLinear, dtype: str, tp: int) -> Iterator[PendingTensor]:
    """The tensors that the rank writes for it; nothing is read before their segments are asked for.

    `dtype` is the checkpoint's. Raises LimitError for a linear that TensorRT-LLM can't have in this
    format, divided over `tp` ranks.
    """
    found = form(linear.linears[0].quantization)
    _check(linear, found, tp)
    prefix = linear.name.removesuffix("weight")
    for role, (kind, shape) in shapes(found, linear.shape, dtype).items():
        yield PendingTensor(
            name=prefix + role,
            dtype=kind,
            shape=shape,
            segments=partial(_ROLES[found.algo, role], linear, kind),
        )


def _check(linear: RankLinear, found: Form, tp: int) -> None:
    if found.algo != "FP8" and len(linear.shape) == 3:
        raise LimitError(
            "TensorRT-LLM's loader takes a mixture's experts in FP8 or unquantized",
            found=f"{linear.name} in {found.algo}",
            do="serve the model without an engine: --target llmapi",
        )
    rows, columns = linear.shape[-2:]
    by_rows = columns == linear.linears[0].shape[1]
    whole = (rows * tp, columns) if by_rows else (rows, columns * tp)
    least = max(64, found.group_size) * tp if found.algo in AWQ else 1
    if whole[0] % least or whole[1] % least or columns % max(1, found.group_size):
        raise LimitError(
            f"{linear.name} can't be divided over {tp} tensor-parallel ranks in {found.algo}",
            found=f"{whole[0]} outputs and {whole[1]} inputs, scales for {found.group_size}",
            do=f"choose a --tp with which both are multiples of {least}" if least > 1 else None,
        )


def _numbers(
    linear: RankLinear, _: str, member: str, *, each: bool, equal: bool = False
) -> Iterator[Segment]:
    """The largest of a member's numbers: of each expert's, or of all."""

    def run() -> Array:
        found = [_largest(linears, member, equal) for _, linears in linear.groups()]
        return np.array(found if each else [max(found)], np.float32)

    yield Compute(size_bytes=4 * (linear.experts if each else 1), run=run)


def _largest(linears: Iterable[QuantizedLinear], member: str, equal: bool = False) -> np.float32:
    numbers = {linear.name: linear.number(member) for linear in linears}
    for name, number in numbers.items():
        if not 0 < number < np.inf:
            raise ModelError(f"{member} of {name} must be a positive number", found=str(number))
    if equal and len(set(numbers.values())) > 1:
        raise ModelError(
            f"{' and '.join(numbers)} are one tensor in TensorRT-LLM and need one {member}",
            found=", ".join(map(str, numbers.values())),
            do="export the model again with a ModelOpt that shares it",
        )
    return np.float32(max(numbers.values()))


def _fp8_weight(linear: RankLinear, kind: str) -> Iterator[Segment]:
    for pieces, linears in linear.groups():
        largest = _largest(linears, "weight_scale")
        part = replace(linear, pieces=pieces, linears=linears)
        yield from stored(part, kind, "weight", of=partial(_rescaled, largest))


def _rescaled(scale: np.float32, linear: QuantizedLinear) -> Tensor:
    """FP8 codes for another, larger scale."""
    weight, own = linear.members["weight"], linear.number("weight_scale")
    if own == scale:
        return weight

    def rows(chosen: slice) -> Array:
        wide = weight.rows(chosen).astype(np.float32)
        return (wide * own / scale).astype(NUMPY[_F8])

    return Computed(dtype=_F8, shape=weight.shape, of=rows)


def kv_scale(scales: Sequence[Tensor], kind: str) -> Iterator[Segment]:
    """[1]: the KV cache's scale, the largest of k's and v's, and for FP8 at least 1.

    ModelOpt's export for engines has it so: FP8's range holds what is usually there.
    """
    least = [np.float32(1)] if kind == "FP8" else []

    def run() -> Array:
        numbers = [np.float32(scale.rows().reshape(-1)[0]) for scale in scales]
        return np.array([max([*least, *numbers])], np.float32)

    yield Compute(size_bytes=4, run=run)


_INPUTS = partial(_numbers, member="input_scale", each=False)
_Role = Callable[[RankLinear, str], Iterator[Segment]]
_ROLES: dict[tuple[str, str], _Role] = {
    ("FP8", "weight"): _fp8_weight,
    ("FP8", "weights_scaling_factor"): partial(_numbers, member="weight_scale", each=True),
    ("FP8", "activation_scaling_factor"): _INPUTS,
    ("NVFP4", "weight"): partial(stored, member="weight", columns=2),
    ("NVFP4", "weights_scaling_factor"): partial(stored, member="weight_scale", columns=16),
    ("NVFP4", "weights_scaling_factor_2"): partial(
        _numbers, member="weight_scale_2", each=False, equal=True
    ),
    ("NVFP4", "activation_scaling_factor"): _INPUTS,
    ("W8A8_SQ_PER_CHANNEL", "weight"): partial(stored, member="weight"),
    ("W8A8_SQ_PER_CHANNEL", "weights_scaling_factor"): partial(
        stored, member="weight_scale", columns=0
    ),
    ("W8A8_SQ_PER_CHANNEL", "activation_scaling_factor"): _INPUTS,
    ("W8A8_SQ_PER_CHANNEL", "prequant_scaling_factor"): quantized_int4.prequant,
    ("W4A8_AWQ", "weight"): quantized_int4.weight,
    ("W4A8_AWQ", "weights_scaling_factor"): quantized_int4.scales,
    ("W4A8_AWQ", "weights_scaling_factor_2"): partial(
        _numbers, member="weight_scale_2", each=False
    ),
    ("W4A8_AWQ", "activation_scaling_factor"): _INPUTS,
    ("W4A8_AWQ", "prequant_scaling_factor"): quantized_int4.prequant,
    ("W4A16_AWQ", "weight"): quantized_int4.weight,
    ("W4A16_AWQ", "weights_scaling_factor"): quantized_int4.scales,
    ("W4A16_AWQ", "zero"): quantized_int4.zeros,
    ("W4A16_AWQ", "prequant_scaling_factor"): quantized_int4.prequant,
}
