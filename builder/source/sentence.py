"""What sentence-transformers' files beside an encoder say of its embeddings.

Formats: sentence-transformers' `modules.json` (the modules in order, each with its folder), its
`Pooling` and `Transformer` modules' configs, and `config_sentence_transformers.json`. A folder
without them is pooled as sentence-transformers does it, by the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from builder.errors import ModelError
from builder.families.bert import EMBEDDING
from builder.source.json_file import parsed

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
LENGTHS = ("sentence_bert_config.json", "sentence_roberta_config.json")
"""Where the longest text is said, in tokens; the module's class gives the file its name."""

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
_MODE = "pooling_mode_"
_ORDER = (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
_SIZES = ("matryoshka_dimensions", "is_matryoshka")
"""Keys of config.json that say that an embedding may be cut, as vLLM reads them."""


def embedding(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The object `embedding` of the checkpoint's config, for the folder `path`.

    `fields` are its config.json's. Raises ModelError for modules and poolings that no embedding
    here is made by.
    """
    found = dict(EMBEDDING)
    if (path / MODULES).is_file():
        kinds = _modules(path)
        found["normalize"] = "Normalize" in kinds
        if "Pooling" in kinds:
            found["pooling"] = _pooling(path / kinds["Pooling"] / "config.json")
        _refuse_prompt(path / PROMPTS)
    found["max_seq_len"] = _max_seq_len(path)
    found["matryoshka_dimensions"] = _sizes(path, fields)
    return found


def _modules(path: Path) -> dict[str, str]:
    """The modules by their class's name, each with its folder."""
    file = path / MODULES
    content = parsed(file)
    try:
        modules = {str(each["type"]).rpartition(".")[2]: str(each["path"]) for each in content}
    except (TypeError, KeyError) as error:
        raise ModelError(f"{file} is not a list of modules", found=repr(error)) from error
    if list(modules) not in _ORDER:
        raise ModelError(
            f"{file} has modules that embeddings can't be made by here",
            found=", ".join(modules) or "none",
            do="it can be Transformer, then Pooling, then Normalize",
        )
    for folder in modules.values():
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
            raise ModelError(f"{file} points out of its folder", found=folder)
    return modules


def _pooling(file: Path) -> str:
    """The one way to pool."""
    config = _object(file)
    if isinstance(mode := config.get("pooling_mode"), str):
        chosen = [f"{_MODE}{mode}_tokens" if mode != "cls" else f"{_MODE}cls_token"]
    else:
        chosen = [key for key, on in config.items() if key.startswith(_MODE) and on is True]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise ModelError(
            f"{file} pools in a way that isn't known here",
            found=" and ".join(key.removeprefix(_MODE) for key in chosen) or "none",
            do=f"known are {', '.join(POOLINGS.values())}, one of them",
        )
    return POOLINGS[chosen[0]]


def _max_seq_len(path: Path) -> int | None:
    for name in LENGTHS:
        if (path / name).is_file():
            length = _object(path / name).get("max_seq_length")
            if length is not None and (type(length) is not int or length < 1):
                raise ModelError(
                    f"{path / name}: max_seq_length must be a positive number", found=repr(length)
                )
            return length
    return None


def _sizes(path: Path, fields: Mapping[str, Any]) -> list[int] | None:
    sizes = fields.get(_SIZES[0])
    if sizes is None:
        return [] if fields.get(_SIZES[1]) is True else None
    if not isinstance(sizes, list) or not all(type(n) is int and n > 0 for n in sizes):
        raise ModelError(
            f"{path}: config.json: {_SIZES[0]} must be positive numbers", found=repr(sizes)
        )
    return sorted(sizes)


def _refuse_prompt(file: Path) -> None:
    """A prompt before every text, which nothing here would put there."""
    config = _object(file) if file.is_file() else {}
    prompts, name = config.get("prompts"), config.get("default_prompt_name")
    if isinstance(prompts, dict) and name is not None and prompts.get(name):
        raise ModelError(
            f"{file} has a prompt before every text",
            found=f"{name}: {prompts[name]!r}",
            do="set default_prompt_name to null, and let clients put the prompt before their texts",
        )


def _object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"{file} is missing", do="download the whole folder")
    content = parsed(file)
    if not isinstance(content, dict):
        raise ModelError(f"{file} is not a JSON object", found=type(content).__name__)
    return content
