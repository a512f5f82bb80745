"""A model folder in, a TensorRT-LLM checkpoint out: streamed, tensor by tensor, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from builder import artifact, families, manifest
from builder.checkpoint import CONFIG, rank_file
from builder.checkpoint_check import some
from builder.checkpoint_config import pretrained_config
from builder.dtypes import FLOATS
from builder.errors import LimitError, ModelError
from builder.families import Family
from builder.manifest import Manifest
from builder.mapping import Layout
from builder.pieces import segments
from builder.progress import Progress, silent
from builder.safetensors_writer import PendingTensor, write
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

    @property
    def layout(self) -> Layout:
        """How the model is divided over ranks."""
        return Layout(
            tp=self.tp,
            pp=self.pp,
            cp=self.cp,
            moe_ep=self.moe_ep,
            parallel_embedding=self.parallel_embedding,
            embedding_sharding_dim=self.embedding_sharding_dim,
        )

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
        "world_size": options.layout.world_size,
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
    family = families.of(model.config.architecture)
    config = pretrained_config(model.config, dtype, layout)
    _check_source(model, family, config)
    layout.check(family, config)
    return [
        [
            PendingTensor(
                name=tensor.name,
                dtype=tensor.dtype or dtype,
                shape=tensor.shape,
                segments=partial(segments, tensor.pieces, model.tensors, tensor.dtype or dtype),
            )
            for tensor in layout.of(family).tensors(family, config, rank)
        ]
        for rank in range(layout.files)
    ]


def _check_source(model: Source, family: Family, config: Mapping[str, Any]) -> None:
    parts = {
        name: shape for tensor in family.expected(config) for name, shape in tensor.sources.items()
    }
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
