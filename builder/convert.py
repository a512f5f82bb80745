"""A model folder in, a TensorRT-LLM checkpoint out: streamed, tensor by tensor, without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path

from builder import artifact, manifest
from builder.checkpoint import CONFIG, rank_file
from builder.dtypes import FLOATS
from builder.errors import LimitError
from builder.manifest import Manifest
from builder.mapping import Layout
from builder.plan import plan
from builder.progress import Progress, silent
from builder.quantized_shapes import WEIGHT_ONLY
from builder.safetensors_writer import PendingTensor, write_all
from builder.source import Source, open_source
from builder.source.huggingface import json_bytes

DTYPES = ("auto", *FLOATS)
_ROOM_FOR_THE_REST_BYTES = 1 << 20
"""Tensor names, config and manifest; the tokenizer's files are counted."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What a user may choose.

    `name` is what the model will be served as, by default the source folder's or file's own.
    `dtype` "auto" is the model's own, with float32 taken as float16 like upstream's converters.
    `recipe` is one of WEIGHT_ONLY, which TensorRT-LLM quantizes itself when it builds the engine.
    The rest is the layout over ranks: see Layout.
    """

    dtype: str = "auto"
    name: str | None = None
    tp: int = 1
    pp: int = 1
    cp: int = 1
    moe_ep: int = 1
    parallel_embedding: bool = False
    embedding_sharding_dim: int = 0
    recipe: str | None = None

    @property
    def layout(self) -> Layout:
        """How the model is divided over ranks."""
        return Layout(**{each.name: getattr(self, each.name) for each in fields(Layout)})

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise LimitError(f"dtype must be one of {', '.join(DTYPES)}", found=repr(self.dtype))
        if self.recipe not in (None, *WEIGHT_ONLY):
            known = ", ".join(WEIGHT_ONLY)
            raise LimitError(f"recipe must be one of {known}", found=repr(self.recipe))


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
    return plan(model, options.layout, _dtype(model, options), options.recipe).ranks


def model_name(source: Path) -> str:
    """What a model is called when nobody says: its folder's name, or its GGUF file's.

    In a hub's cache, `models--ORG--NAME/snapshots/REVISION`, it is NAME.
    """
    path = source.absolute()
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.rpartition("--")[2]
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
    made = plan(model, options.layout, dtype, options.recipe)
    files = {name: read() for name, read in model.files.items()}
    weights_bytes = sum(tensor.nbytes for tensors in made.ranks for tensor in tensors)
    artifact.require_space(
        out.resolve(), weights_bytes + sum(map(len, files.values())) + _ROOM_FOR_THE_REST_BYTES
    )
    about = {
        **wanted.about,
        "architecture": model.config.architecture,
        "dtype": dtype,
        "world_size": options.layout.world_size,
        "weights_bytes": weights_bytes,
        "parameters": sum(math.prod(tensor.shape) for tensor in model.tensors.values()),
    }
    with artifact.stage(out, replace(wanted, about=about)) as staging:
        for name, content in files.items():
            (staging.path / name).write_bytes(content)
        (staging.path / CONFIG).write_bytes(json_bytes(made.config))
        weights = {staging.path / rank_file(n): tensors for n, tensors in enumerate(made.ranks)}
        for file, digest in write_all(weights, progress).items():
            staging.record(file.name, digest)
    return manifest.read(out, "checkpoint")
