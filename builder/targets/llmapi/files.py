"""The files of a Hugging Face folder: whole weights, what lies beside them, and the tokenizer's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder import manifest, safetensors_file
from builder.errors import ModelError
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
    if not (path / huggingface.TOKENIZER_FILES[0]).is_file():
        raise ModelError(
            f"{path} has no {huggingface.TOKENIZER_FILES[0]}",
            do="save one there: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    wanted = (*huggingface.TOKENIZER_FILES, huggingface.GENERATION_CONFIG)
    files = {name: (path / name).read_bytes for name in wanted if (path / name).is_file()}
    ids = {k: fields[k] for k in huggingface.GENERATION_KEYS if fields.get(k) is not None}
    return {huggingface.GENERATION_CONFIG: lambda: huggingface.json_bytes(ids), **files}
