"""A model folder in, a TensorRT-LLM checkpoint out: streamed, tensor by tensor, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from builder import artifact, manifest
from builder.calibration import Calibration
from builder.checkpoint import CONFIG, QUANT_CONFIG, rank_file
from builder.dtypes import FLOATS
from builder.errors import LimitError
from builder.manifest import Manifest
from builder.mapping import Layout
from builder.plan import plan
from builder.progress import Progress, silent
from builder.quantized_shapes import WEIGHT_ONLY
from builder.safetensors_writer import PendingTensor, write_all
from builder.source import Source, open_source
from builder.source.calibrated import calibrated
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
    gpus_per_node: int = 8
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


def _nothing(_: Path) -> None:
    pass


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantizing:
    """What makes a conversion a quantization.

    `calibrate` is called with the source, unless the checkpoint is already there; without one the
    recipe of the conversion's options says it all. `finish` is called with the folder when the
    weights are in it, to add files of its own. `settings` and `made_by` go into the manifest.
    """

    calibrate: Callable[[Source], Calibration] | None = None
    finish: Callable[[Path], None] = _nothing
    settings: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, str] = field(default_factory=dict)


def convert(
    source: Path,
    out: Path,
    *,
    options: ConvertOptions | None = None,
    quantizing: Quantizing | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Convert the model at `source` into the checkpoint folder `out`; returns its manifest.

    A checkpoint that the same call has made before is kept as it is. With `quantizing` the
    weights are written as a calibration has them. `progress` counts bytes of weights. Raises
    ModelError for a source that can't be used, LimitError for a dtype that can't hold its numbers
    or a format that can't hold its linears, OutputError when `out` can't be written.
    """
    options = options or ConvertOptions()
    if not source.exists():
        open_source(source)
    name = options.name or model_name(source)
    wanted = Manifest(
        kind="checkpoint",
        made_by={"trtbuild": manifest.own_version(), **(quantizing.made_by if quantizing else {})},
        source=manifest.identity(source),
        options={
            **asdict(options),
            "name": name,
            **({"quantize": dict(quantizing.settings)} if quantizing else {}),
        },
        about={"name": name},
    )
    if found := artifact.finished(out, wanted):
        return found
    model = open_source(source)
    if quantizing and quantizing.calibrate:
        model = calibrated(model, quantizing.calibrate(model))
    finish = quantizing.finish if quantizing else _nothing
    return _write(model, out, wanted, options, finish, progress)


def planned(source: Path, options: ConvertOptions) -> list[list[PendingTensor]]:
    """What `convert` would write for each rank, in its order; no tensor is read."""
    model = open_source(source)
    return plan(model, options.layout, checkpoint_dtype(model, options), options.recipe).ranks


def model_name(source: Path) -> str:
    """What a model is called when nobody says: its folder's name, or its GGUF file's.

    In a hub's cache, `models--ORG--NAME/snapshots/REVISION`, it is NAME.
    """
    path = source.absolute()
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.rpartition("--")[2]
    path = source.resolve()
    return path.stem if path.suffix == ".gguf" else path.name


def checkpoint_dtype(model: Source, options: ConvertOptions) -> str:
    """The dtype of what stays unquantized in the checkpoint."""
    if options.dtype != "auto":
        return options.dtype
    return "float16" if model.config.dtype == "float32" else model.config.dtype


def _write(
    model: Source,
    out: Path,
    wanted: Manifest,
    options: ConvertOptions,
    finish: Callable[[Path], None],
    progress: Progress,
) -> Manifest:
    dtype = checkpoint_dtype(model, options)
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
        if made.layers:
            (staging.path / QUANT_CONFIG).write_bytes(json_bytes(made.layers))
        weights = {staging.path / rank_file(n): tensors for n, tensors in enumerate(made.ranks)}
        for file, digest in write_all(weights, progress).items():
            staging.record(file.name, digest)
        finish(staging.path)
    return manifest.read(out, "checkpoint")
