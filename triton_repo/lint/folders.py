"""What lies on the disk: version folders, model.py, and what parameters point to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from builder.errors import ArtifactError
from triton_repo import engine as engines
from triton_repo.contract import EMBEDDING
from triton_repo.lint.finding import Finding, error, warning
from triton_repo.lint.repository import Model, Repository

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_FOLDERS = ("tokenizer_dir", "gpt_model_path", "encoder_model_path", "multimodal_model_path")
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_OTHERS = ("xgrammar_tokenizer_info_path", "lora_prefetch_dir")


def versions(repository: Repository) -> Iterator[Finding]:
    """A folder for a version, and the code in it of a model in Python."""
    for model in repository.models.values():
        if model.config.name not in ("", model.name):
            do = f"call it as its folder, {model.name}"
            yield error(model.file, "name", model.config.name, do)
        found = model.versions
        if not found:
            do = "make the folder 1 in it, empty if need be: Triton serves versions"
            yield error(model.name, "version folder", "none", do)
        elif model.config.backend == "python" and not (found[-1] / "model.py").is_file():
            where = f"{model.name}/{found[-1].name}"
            yield error(where, "model.py", "no file", "put the model's code there")


def paths(repository: Repository) -> Iterator[Finding]:
    """What parameters point to is there, and is what they say."""
    for model in repository.models.values():
        for name in (*_FOLDERS, *_OTHERS):
            value = model.values.get(name)
            if value is not None:
                yield from _path(repository, model, name, value)
        if value := model.values.get("tokenizer_dir"):
            yield from _tokenizer(repository, model, repository.resolve(value))
        if value := model.values.get("gpt_model_path"):
            yield from _engine(model, repository.resolve(value))


def _path(repository: Repository, model: Model, name: str, value: str) -> Iterator[Finding]:
    place = repository.resolve(value)
    there = place.is_file() if name.endswith("_info_path") else place.is_dir()
    field = f"parameters.{name}"
    hub = name == "tokenizer_dir" and repository.manifest is None and _HUB_ID.fullmatch(value)
    if hub and not place.exists():
        do = "copy the tokenizer's files into a folder and name that"
        yield warning(model.file, field, f"{value}: no folder; a model of a hub's, if any", do)
    elif not there:
        found = f"{value}: nothing there" if not place.exists() else f"{value}: no folder"
        if name.endswith("_info_path") and place.exists():
            found = f"{value}: no file"
        do = "correct the path; a relative one counts from the repository"
        yield error(model.file, field, found, do)
    elif not Path(value).is_absolute() and repository.manifest is None:
        do = "right only where tritonserver runs in the repository, as trtbuild serve does"
        yield warning(model.file, field, f"the relative path {value}", do)


def _tokenizer(repository: Repository, model: Model, folder: Path) -> Iterator[Finding]:
    # upstream's C++ backend takes no notice of it
    if model.role == "tensorrt_llm" and model.config.backend != "python":
        return
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER):
        do = "copy the model's tokenizer files there"
        yield error(model.file, "parameters.tokenizer_dir", f"no tokenizer in {folder}", do)


def _engine(model: Model, folder: Path) -> Iterator[Finding]:
    # preprocessing reads the engine's config only for images
    if model.role not in ("tensorrt_llm", EMBEDDING) or not folder.is_dir():
        return
    field = "parameters.gpt_model_path"
    try:
        engine = engines.anyones(folder)
    except ArtifactError as why:
        yield error(model.file, field, f"{why.what}: {why.found}", "give an engine's folder")
        return
    if missing := engines.missing_files(engine):
        found = f"{folder} has no {', '.join(missing)}"
        do = f"the engine has {engine.world_size} ranks: copy all of its files"
        yield error(model.file, field, found, do)


def xgrammar(repository: Repository) -> Iterator[Finding]:
    """The tokenizer's file for guided decoding is one."""
    for model in repository.of("tensorrt_llm"):
        field = "parameters.xgrammar_tokenizer_info_path"
        value = model.values.get("xgrammar_tokenizer_info_path")
        if model.values.get("guided_decoding_backend") and not value:
            if model.config.backend == "tensorrtllm":
                do = "give xgrammar's file: without it requests with a grammar are not guided"
                yield error(model.file, field, "nothing", do)
        elif value and repository.resolve(value).is_file():
            try:
                found = json.loads(repository.resolve(value).read_text())
                missing = {"encoded_vocab", "tokenizer_str", "stop_token_ids"} - set(found)
            except (ValueError, TypeError) as why:
                yield error(value, "", str(why), "write it again")
                continue
            if missing:
                yield error(value, ", ".join(sorted(missing)), "nothing", "write it again")
