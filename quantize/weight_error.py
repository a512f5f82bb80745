"""How far a quantized checkpoint's weights are from the source's: which layers hurt.

The source's side is what `convert` would write without a quantization, so names, fusions and
slices are the checkpoint's own. A linear at a time is in memory; torch isn't needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builder.checkpoint import Checkpoint
from builder.dequantize import Coding, coded_linear, dequantized
from builder.dtypes import NUMPY, Array
from builder.errors import ModelError
from builder.plan import plan
from builder.progress import Progress, silent
from builder.quantized_shapes import is_linear
from builder.safetensors_writer import Compute, PendingTensor
from builder.source import Source

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class WeightError:
    """The error of a linear's weight, of a mixture's experts together.

    `relative` is ||W - Ŵ|| / ||W|| in Frobenius' norm, `largest` is max |W - Ŵ| / max |W|; Ŵ is
    what the codes stand for, times what the inputs are multiplied with before. `module` is the
    checkpoint's name of the linear on `rank`, where layers count from the rank's first; `layer`
    counts from the model's, None of a linear in no layer.
    """

    module: str
    rank: int
    layer: int | None
    relative: float
    largest: float


def weight_errors(
    source: Source, checkpoint: Path, progress: Progress = silent
) -> tuple[WeightError, ...]:
    """The quantized linears of a checkpoint made from `source`, the worst first.

    W8A16 and W4A16 checkpoints have plain weights: they are quantized as TensorRT-LLM's loader
    does. `progress` counts linears. Raises ModelError for a source that is quantized itself, or of
    other shapes; ArtifactError for a damaged checkpoint.
    """
    if source.quantization:
        raise ModelError(
            f"{source.path} is quantized itself",
            found=source.quantization.format.value,
            do="give the model that it was made from",
        )
    opened = Checkpoint.open(checkpoint)
    planned = plan(source, opened.layout, "float32")
    linears = [
        (rank, tensor)
        for rank, tensors in enumerate(planned.ranks)
        for tensor in tensors
        if is_linear(tensor.name, tensor.shape)
    ]
    found = _errors(opened, linears, progress)
    return tuple(sorted(found, key=lambda error: (-error.relative, error.rank, error.module)))


def _errors(
    checkpoint: Checkpoint, linears: Sequence[tuple[int, PendingTensor]], progress: Progress
) -> Iterator[WeightError]:
    tensors = [checkpoint.tensors(rank) for rank in range(checkpoint.layout.files)]
    for index, (rank, tensor) in enumerate(linears):
        module = tensor.name.removesuffix(".weight")
        linear = coded_linear(checkpoint.config, tensors[rank], module)
        if linear.coding is not Coding.PLAIN:
            _require_shape(module, tensor.shape, linear.shape)
            plain = _plain(tensor)
            difference = plain - dequantized(checkpoint.config, tensors[rank], module)
            yield WeightError(
                module=module,
                rank=rank,
                layer=_layer(checkpoint, rank, module),
                relative=float(np.linalg.norm(difference) / (np.linalg.norm(plain) or 1)),
                largest=float(np.abs(difference).max() / (np.abs(plain).max() or 1)),
            )
        progress(index + 1, len(linears))


def _layer(checkpoint: Checkpoint, rank: int, module: str) -> int | None:
    local = next((int(part) for part in module.split(".") if part.isdigit()), None)
    if local is None:
        return None
    layout = checkpoint.layout
    return layout.layers(rank // layout.tp, checkpoint.config["num_hidden_layers"])[local]


def _plain(tensor: PendingTensor) -> Matrix:
    """What `convert` would write for a tensor, read into memory."""
    parts: list[Array] = []
    for segment in tensor.segments():
        if isinstance(segment, Compute):
            parts.append(segment.run().reshape(-1))
        else:
            stored = segment.tensor.file.read(segment.begin, segment.size_bytes)
            parts.append(stored.view(NUMPY[tensor.dtype]))
    return np.concatenate(parts).astype(np.float32).reshape(tensor.shape)


def _require_shape(module: str, plain: tuple[int, ...], quantized: tuple[int, ...]) -> None:
    if plain != quantized:
        raise ModelError(
            f"the checkpoint was not made from this model: {module} has another shape",
            found=f"{list(quantized)} where the model has {list(plain)}",
        )
