"""A model folder in, a TensorRT-LLM checkpoint out: streamed, tensor by tensor, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from builder import artifact, families, manifest
from builder.checkpoint import CONFIG, rank_file
from builder.checkpoint_check import some
from builder.checkpoint_config import pretrained_config
from builder.dtypes import FLOATS, NUMPY, Array
from builder.errors import LimitError, ModelError
from builder.families import Expected, Family
from builder.manifest import Manifest
from builder.progress import Progress, silent
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
    """

    dtype: str = "auto"
    name: str | None = None

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
    return _write(model, out, wanted, _dtype(model, options), progress)


def model_name(source: Path) -> str:
    """What a model is called when nobody says: its folder's name, or its GGUF file's."""
    path = source.resolve()
    return path.stem if path.suffix == ".gguf" else path.name


def _dtype(model: Source, options: ConvertOptions) -> str:
    if options.dtype != "auto":
        return options.dtype
    return "float16" if model.config.dtype == "float32" else model.config.dtype


def _write(model: Source, out: Path, wanted: Manifest, dtype: str, progress: Progress) -> Manifest:
    family = families.of(model.config.architecture)
    tensors = plan(model, family, dtype)
    files = {name: read() for name, read in model.files.items()}
    size = sum(tensor.nbytes for tensor in tensors)
    artifact.require_space(
        out.resolve(), size + sum(map(len, files.values())) + _ROOM_FOR_THE_REST_BYTES
    )
    about = {
        **wanted.about,
        "architecture": model.config.architecture,
        "dtype": dtype,
        "weights_bytes": size,
        "parameters": sum(math.prod(tensor.shape) for tensor in model.tensors.values()),
    }
    with artifact.stage(out, replace(wanted, about=about)) as staging:
        for name, content in files.items():
            (staging.path / name).write_bytes(content)
        config = pretrained_config(model.config, family, dtype)
        (staging.path / CONFIG).write_bytes(json_bytes(config))
        name = rank_file(0)
        staging.record(name, write(staging.path / name, tensors, progress))
    return manifest.read(out, "checkpoint")


def plan(model: Source, family: Family, dtype: str) -> list[PendingTensor]:
    """The checkpoint's tensors, each with where its bytes come from; nothing is read yet.

    Raises ModelError, with names, for tensors that are missing, left over or misshapen.
    """
    # A tensor of the source has at most two places; more of them is lacking some, and a config
    # may claim any number of layers.
    most = 2 * len(model.tensors) + 1
    expected = list(islice(family.expected(asdict(model.config)), most))
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
    return [_pending(tensor, model.tensors, dtype) for tensor in expected]


def _complain(model: Source, what: str, names: list[str]) -> None:
    if names:
        raise ModelError(
            f"{model.path} {what}",
            found=some(names),
            do=f"check that it is a whole {model.config.architecture} with its own config",
        )


def _pending(expected: Expected, tensors: Mapping[str, Tensor], dtype: str) -> PendingTensor:
    parts = [(name, tensors[name]) for name, _ in expected.parts]
    return PendingTensor(
        name=expected.name,
        dtype=dtype,
        shape=expected.shape,
        blocks=partial(_blocks, parts, dtype),
    )


def _blocks(parts: Iterable[tuple[str, Tensor]], dtype: str) -> Iterator[Array]:
    """The parts' elements one after the other, cast where they are of another dtype."""
    for name, tensor in parts:
        for block in tensor.blocks():
            yield block if tensor.dtype == dtype else _cast(name, block, dtype)


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
