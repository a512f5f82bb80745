"""AWQ's and GPTQ's linears, and ModelOpt's 4-bit ones, as TensorRT-LLM's W4A16_AWQ.

The loader arranges the codes for the GPU itself, whether there are zeros and scales of the inputs
or not, and it zeroes the biases that are added on each rank; it does neither for W4A16_GPTQ
(TensorRT-LLM 1.2, `models/modeling_utils.py`, `preprocess_perlayer_weights`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from builder import int4
from builder.dtypes import NUMPY, Array
from builder.errors import ModelError
from builder.quantized_shapes import PLAIN
from builder.rank_linear import RankLinear, stored
from builder.safetensors_file import ALL, StoredTensor
from builder.safetensors_writer import Compute, Segment
from builder.source.hf_quantization import Format
from builder.source.model import Computed, Tensor
from builder.source.quantized_linear import QuantizedLinear


def weight(linear: RankLinear, kind: str) -> Iterator[Segment]:
    """[out / 2, in]: signed codes, two output channels in a byte, whatever the source has."""
    if linear.linears[0].quantization.format in PLAIN:
        yield from stored(linear, kind, "weight", rows=2, of=_same_bytes)
        return
    for piece, source in zip(linear.pieces, linear.linears, strict=True):
        # The inputs are cut before anything is computed.
        part = replace(linear, pieces=[replace(piece, columns=ALL)], linears=[source])
        yield from stored(part, kind, "weight", rows=2, of=partial(_pairs, inputs=piece.columns))


def _same_bytes(linear: QuantizedLinear) -> Tensor:
    weight = linear.members["weight"]
    return replace(weight, dtype="int8") if isinstance(weight, StoredTensor) else weight


def _pairs(linear: QuantizedLinear, *, inputs: slice) -> Tensor:
    """Of some of the inputs, [out / 2, in]."""
    _check_order(linear)
    awq = linear.quantization.format is Format.AWQ
    start, stop, _ = inputs.indices(linear.shape[1])
    words = linear.members["qweight"].rows()
    words = words[start:stop] if awq else words[start // 8 : stop // 8]

    def rows(chosen: slice) -> Array:
        first, last, _ = chosen.indices(linear.shape[0] // 2)
        if not awq:
            return int4.pairs_of_gptq(words[:, 2 * first : 2 * last])
        begin = first // 4
        pairs = int4.pairs_of_awq(words[:, begin : -(-last // 4)])
        return pairs[first - 4 * begin : last - 4 * begin]

    return Computed(dtype="int8", shape=(linear.shape[0] // 2, stop - start), of=rows)


def _check_order(linear: QuantizedLinear) -> None:
    order = linear.members.get("g_idx")
    each = linear.quantization.group_size
    if order is not None and (order.rows() != np.arange(linear.shape[1]) // each).any():
        raise ModelError(
            f"{linear.name} has its inputs in the order of activation",
            found="g_idx that isn't in order",
            do="quantize the model again with desc_act false",
        )


def scales(linear: RankLinear, kind: str) -> Iterator[Segment]:
    found = linear.linears[0].quantization
    plain = found.format in PLAIN
    member = "weight_scale" if plain else "scales"
    return stored(linear, kind, member, columns=found.group_size, transposed=not plain)


def zeros(linear: RankLinear, kind: str) -> Iterator[Segment]:
    """[in / group, out]: what each output adds to each input's weight."""
    rows, columns = linear.shape
    each = linear.linears[0].quantization.group_size

    def run() -> Array:
        parts = []
        for piece, source in zip(linear.pieces, linear.linears, strict=True):
            whole = _zeros(source, kind)
            first = (piece.columns.start or 0) // each
            taken = whole[first : first + columns // each]
            parts += [taken[:, run] for run in piece.rows]
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    yield Compute(size_bytes=rows * (columns // each) * NUMPY[kind].itemsize, run=run)


def _zeros(linear: QuantizedLinear, dtype: str) -> Array:
    found = linear.quantization.format
    order = int4.AWQ_ORDER if found is Format.AWQ else int4.PLAIN_ORDER
    points = int4.unpack(linear.members["qzeros"].rows(), order).astype(np.float32)
    if found is Format.GPTQ:
        if (points == 15).any():
            raise ModelError(
                f"{linear.name} has zero points that readers of GPTQ take differently",
                found="a stored 15, which is 16 to some and 0 to others",
                do="quantize the model again with checkpoint_format gptq_v2",
            )
        # The format's first version stores one less.
        points += 1
    scale = linear.members["scales"].rows().astype(NUMPY[dtype]).astype(np.float32)
    return ((np.float32(8) - points) * scale).astype(NUMPY[dtype])


def prequant(linear: RankLinear, kind: str) -> Iterator[Segment]:
    """[in]: what the inputs are multiplied with; ones where that is done before."""
    columns = linear.shape[1]

    def run() -> Array:
        parts = []
        for piece, source in zip(linear.pieces, linear.linears, strict=True):
            scale = source.members.get("pre_quant_scale")
            taken = np.ones(columns) if scale is None else scale.rows()[piece.columns]
            parts.append(np.ascontiguousarray(taken.astype(NUMPY[kind])))
        if any((part != parts[0]).any() for part in parts):
            raise ModelError(
                f"{linear.name} joins linears whose inputs are scaled differently",
                found="different pre_quant_scale",
                do="export the model again with a ModelOpt that shares it",
            )
        return parts[0]

    yield Compute(size_bytes=columns * NUMPY[kind].itemsize, run=run)
