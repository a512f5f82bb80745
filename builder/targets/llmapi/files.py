"""The files of a Hugging Face folder: whole weights, what lies beside them, and the tokenizer's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from builder import manifest, safetensors_file
from builder.errors import ModelError, OutputError
from builder.source import huggingface

_BESIDE = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
"""Files that a model may need beside its weights."""


def weight_files(path: Path) -> tuple[str, ...]:
    """The weights' files, each held against its header's sizes; no tensor is read.

    Raises ModelError for what isn't there, CorruptFileError for what is cut short.
    """
    index = path / huggingface.INDEX
    if index.is_file():
        places = huggingface.read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ModelError(f"{index} has no field weight_map", found=repr(places))
        names = sorted({str(place) for place in places.values()})
    else:
        names, places = [huggingface.SINGLE], {}
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            huggingface.refuse_pickle(path, path.iterdir())
            raise ModelError(f"{path} is not whole", found=f"no {name}", do="download it")
        tensors = safetensors_file.read(path / name)
        missing = [t for t, place in places.items() if place == name and t not in tensors]
        if missing:
            raise ModelError(
                f"{index} places the tensor {missing[0]} in {name}, which doesn't have it",
                do="download the index and the shard again, from one revision",
            )
    return tuple(names)


def all_files(path: Path, weights: tuple[str, ...]) -> tuple[str, ...]:
    """All that a copy of the model takes."""
    beside = (
        p.name
        for p in path.iterdir()
        if p.is_file() and p.suffix in _BESIDE and p.name != manifest.NAME
    )
    return tuple(sorted({*weights, *beside}))


def tokenizer_files(path: Path, fields: Mapping[str, Any]) -> Mapping[str, Callable[[], bytes]]:
    """What the proxy reads, by name: the tokenizer's files and the ids that end an answer.

    Raises ModelError where there is no tokenizer.
    """
    files = huggingface.tokenizer_files(path)
    generation = path / huggingface.GENERATION_CONFIG
    if generation.is_file():
        return {**files, huggingface.GENERATION_CONFIG: generation.read_bytes}
    ids = {k: fields[k] for k in huggingface.GENERATION_KEYS if fields.get(k) is not None}
    return {**files, huggingface.GENERATION_CONFIG: lambda: huggingface.json_bytes(ids)}


def refuse_overlap(out: Path, sources: Iterable[Path]) -> None:
    """Raise OutputError for a folder to write that is, holds or lies in one that is read."""
    place = out.resolve()
    for source in sources:
        path = source.resolve()
        if place.is_relative_to(path) or path.is_relative_to(place):
            raise OutputError(
                f"{out} can't be written",
                found=f"{source}, which is read, in its place",
                do="choose another place with -o",
            )


def stored(path: Path) -> Path:
    """The file itself: a hub's cache holds symbolic links, which a link would copy."""
    return path.resolve()


def link(source: str | Path, target: str | Path) -> None:
    """Put a file into a folder, as a hard link where the file system allows."""
    source, target = stored(Path(source)), Path(target)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        # another file system, or one without links
        shutil.copyfile(source, target)
