"""A model folder in, a TensorRT-LLM checkpoint out: streamed, tensor by tensor, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from builder import artifact, families, manifest
from builder.checkpoint import CONFIG, rank_file
from builder.checkpoint_check import some
from builder.checkpoint_config import pretrained_config
from builder.dtypes import FLOATS, NUMPY, Array
from builder.errors import LimitError, ModelError
from builder.families import Family
from builder.manifest import Manifest
from builder.mapping import Layout, Piece
from builder.progress import Progress, silent
from builder.safetensors_file import ALL, BLOCK_BYTES
from builder.safetensors_writer import PendingTensor, write
from builder.source import Source, Tensor, open_source
from builder.source.huggingface import json_bytes

DTYPES = ("auto", *FLOATS)
_ROOM_FOR_THE_REST_BYTES = 1 << 20
"""Tensor names, config and manifest; the tokenizer's files are counted."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What a user may choose.

    `name` is what the model will be served as, by default the source folder's or file's own.
    `dtype` "auto" is the model's own, with float32 taken as float16 like upstream's converters.
    `tp` and `pp` are the ranks of tensor and pipeline parallelism; with `parallel_embedding` the
    embedding is divided too.
    """

    dtype: str = "auto"
    name: str | None = None
    tp: int = 1
    pp: int = 1
    parallel_embedding: bool = False

    @property
    def layout(self) -> Layout:
        """How the model is divided over ranks."""
        return Layout(tp=self.tp, pp=self.pp, parallel_embedding=self.parallel_embedding)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise LimitError(f"dtype must be one of {', '.join(DTYPES)}", found=repr(self.dtype))


def convert(
    source: Path,
    out: Path,
    *,
    options: ConvertOptions | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Convert the model at `source` into the checkpoint folder `out`; returns its manifest.

    A checkpoint that the same call has made before is kept as it is. `progress` counts bytes of
    weights. Raises ModelError for a source that can't be used, LimitError for a dtype that can't
    hold its numbers, OutputError when `out` can't be written.
    """
    options = options or ConvertOptions()
    if not source.exists():
        open_source(source)
    name = options.name or model_name(source)
    wanted = Manifest(
        kind="checkpoint",
        made_by={"trtbuild": version("trtbuild")},
        source=manifest.identity(source),
        options={**asdict(options), "name": name},
        about={"name": name},
    )
    if found := artifact.finished(out, wanted):
        return found
    model = open_source(source)
    return _write(model, out, wanted, options, progress)


def planned(source: Path, options: ConvertOptions) -> list[list[PendingTensor]]:
    """What `convert` would write for each rank, in its order; no tensor is read."""
    model = open_source(source)
    return plan(model, options.layout, _dtype(model, options))


def model_name(source: Path) -> str:
    """What a model is called when nobody says: its folder's name, or its GGUF file's."""
    path = source.resolve()
    return path.stem if path.suffix == ".gguf" else path.name


def _dtype(model: Source, options: ConvertOptions) -> str:
    if options.dtype != "auto":
        return options.dtype
    return "float16" if model.config.dtype == "float32" else model.config.dtype


def _write(
    model: Source, out: Path, wanted: Manifest, options: ConvertOptions, progress: Progress
) -> Manifest:
    dtype = _dtype(model, options)
    ranks = plan(model, options.layout, dtype)
    files = {name: read() for name, read in model.files.items()}
    sizes = [sum(tensor.nbytes for tensor in tensors) for tensors in ranks]
    artifact.require_space(
        out.resolve(), sum(sizes) + sum(map(len, files.values())) + _ROOM_FOR_THE_REST_BYTES
    )
    about = {
        **wanted.about,
        "architecture": model.config.architecture,
        "dtype": dtype,
        "world_size": len(ranks),
        "weights_bytes": sum(sizes),
        "parameters": sum(math.prod(tensor.shape) for tensor in model.tensors.values()),
    }
    with artifact.stage(out, replace(wanted, about=about)) as staging:
        for name, content in files.items():
            (staging.path / name).write_bytes(content)
        config = pretrained_config(model.config, dtype, options.layout)
        (staging.path / CONFIG).write_bytes(json_bytes(config))
        for rank, tensors in enumerate(ranks):
            file, before = staging.path / rank_file(rank), sum(sizes[:rank])
            report = partial(_shifted, progress, before, sum(sizes))
            staging.record(file.name, write(file, tensors, report))
    return manifest.read(out, "checkpoint")


def _shifted(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def plan(model: Source, layout: Layout, dtype: str) -> list[list[PendingTensor]]:
    """Each rank's tensors, each with where its bytes come from; nothing is read yet.

    Raises ModelError, with names, for tensors that are missing, left over or misshapen, and
    LimitError for a model that can't be divided so.
    """
    config = asdict(model.config)
    family = families.of(model.config.architecture)
    _check_source(model, family, config)
    layout.check(config)
    return [
        [
            PendingTensor(
                name=tensor.name,
                dtype=dtype,
                shape=tensor.shape,
                blocks=partial(_blocks, tensor.pieces, model.tensors, dtype),
            )
            for tensor in layout.tensors(family, config, rank)
        ]
        for rank in range(layout.world_size)
    ]


def _check_source(model: Source, family: Family, config: Mapping[str, Any]) -> None:
    expected = family.expected(config)
    parts = {name: shape for tensor in expected for name, shape in tensor.parts}
    _complain(model, "lacks tensors", [name for name in parts if name not in model.tensors])
    tied = model.config.tie_word_embeddings
    left = [n for n in model.tensors if n not in parts and not family.is_unused(n, tied=tied)]
    _complain(model, "has tensors that have no place in the checkpoint", left)
    wrong = [
        f"{name} {list(model.tensors[name].shape)}, expected {list(shape)}"
        for name, shape in parts.items()
        if model.tensors[name].shape != shape
    ]
    _complain(model, "has tensors whose shapes don't fit its config", wrong)


def _complain(model: Source, what: str, names: list[str]) -> None:
    if names:
        raise ModelError(
            f"{model.path} {what}",
            found=some(names),
            do=f"check that it is a whole {model.config.architecture} with its own config",
        )


def _blocks(pieces: Iterable[Piece], tensors: Mapping[str, Tensor], dtype: str) -> Iterator[Array]:
    """The pieces' elements one after the other, cast where they are of another dtype."""
    for piece in pieces:
        tensor = tensors[piece.source]
        whole = piece.columns == ALL
        for block in tensor.blocks(piece.rows) if whole else _columns(tensor, piece):
            yield block if tensor.dtype == dtype else _cast(piece.source, block, dtype)
        if piece.padding:
            yield np.zeros(piece.padding * math.prod(piece.shape[1:]), NUMPY[dtype])


def _columns(tensor: Tensor, piece: Piece) -> Iterator[Array]:
    """Some columns of a matrix, as many whole rows at once as a block may hold."""
    rows, columns = tensor.shape
    step = max(1, BLOCK_BYTES // (columns * NUMPY[tensor.dtype].itemsize))
    for start in range(0, rows, step):
        chosen = slice(start, min(start + step, rows))
        whole = np.concatenate(list(tensor.blocks(chosen))).reshape(-1, columns)
        yield np.ascontiguousarray(whole[:, piece.columns]).reshape(-1)


def _cast(name: str, block: Array, dtype: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = block.astype(NUMPY[dtype])
    if dtype == "float16" and not np.isfinite(cast).all() and np.isfinite(block).all():
        raise LimitError(
            f"the tensor {name} has numbers that float16 can't hold",
            found=f"up to {np.abs(block.astype(np.float32)).max():.0f}",
            do="convert with --dtype bfloat16 or float32",
        )
    return cast
