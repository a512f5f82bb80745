"""What stays unquantized in an exported folder, in the dtype that the folder is meant to have.

A model is calibrated in float32 where that is faster (`quantize.model`), and ModelOpt writes what
it doesn't quantize as the model has it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from builder import safetensors_file
from builder.dtypes import FLOATS, NUMPY, Array
from builder.pieces import cast
from builder.safetensors_file import BLOCK_BYTES, StoredTensor
from builder.safetensors_writer import Compute, PendingTensor, Segment, Span, write

_INDEX = "model.safetensors.index.json"
_SCALES = (".weight_scale", ".weight_scale_2", ".input_scale", ".k_scale", ".v_scale")


def to_dtype(folder: Path, dtype: str) -> None:
    """Turn what isn't quantized in an exported folder into `dtype`; config.json then says so too.

    Raises LimitError for a number that float16 can't hold.
    """
    path, index = folder / "config.json", folder / _INDEX
    sizes = [_rewrite(file, dtype) for file in sorted(folder.glob("*.safetensors"))]
    config = json.loads(path.read_text())
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    path.write_text(json.dumps(config, indent=2) + "\n")
    if index.is_file():
        fields = json.loads(index.read_text())
        fields["metadata"]["total_size"] = sum(sizes)
        index.write_text(json.dumps(fields, indent=2) + "\n")


def _rewrite(path: Path, dtype: str) -> int:
    """Write a file again where that is needed; returns the bytes of its tensors."""
    tensors = safetensors_file.read(path)
    wrong = {
        name for name, tensor in tensors.items() if _is_plain(tensor) and tensor.dtype != dtype
    }
    pending = [
        PendingTensor(
            name=name,
            dtype=dtype if name in wrong else tensor.dtype,
            shape=tensor.shape,
            segments=partial(_cast if name in wrong else _same, tensor, dtype),
        )
        for name, tensor in tensors.items()
    ]
    if wrong:
        written = path.with_name(f"{path.name}.partial")
        write(written, pending)
        written.replace(path)
    return sum(tensor.nbytes for tensor in pending)


def _is_plain(tensor: StoredTensor) -> bool:
    """Whether it has the model's dtype in ModelOpt's form: all floats but scales of codes."""
    return tensor.dtype in FLOATS and not tensor.name.endswith(_SCALES)


def _same(tensor: StoredTensor, _: str) -> Iterator[Segment]:
    yield Span(tensor=tensor, begin=tensor.begin, size_bytes=tensor.nbytes)


def _cast(tensor: StoredTensor, dtype: str) -> Iterator[Segment]:
    count, step = math.prod(tensor.shape), BLOCK_BYTES // 4

    def run(start: int) -> Array:
        return cast(tensor.name, tensor.numpy().reshape(-1)[start : start + step], dtype)

    for start in range(0, count, step):
        size_bytes = min(step, count - start) * NUMPY[dtype].itemsize
        yield Compute(size_bytes=size_bytes, run=partial(run, start))
