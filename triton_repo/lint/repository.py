"""A model repository as it lies on the disk, whoever wrote it, with what can be read of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from builder import manifest as manifests
from builder.errors import ArtifactError
from builder.manifest import Manifest
from triton_repo import engine as engines
from triton_repo.contract import EMBEDDING
from triton_repo.engine import Engine
from triton_repo.lint.finding import Finding, error
from triton_repo.models import pbtxt

CONFIG = "config.pbtxt"

_BLANK = re.compile(r"\$\{(\w+)\}")
_QUOTED = re.compile(r'"[^"\n]*"')
_SIGNS = {
    "postprocessing": "TOKENS_BATCH",
    "preprocessing": "REQUEST_OUTPUT_LEN",
    "tensorrt_llm": "request_output_len",
    "tensorrt_llm_bls": "max_tokens",
}
"""Upstream's model → an input that tells it from those below, ensembles apart."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model's folder and its config.

    `role` is upstream's model that it is, "" where it is none. `unfilled` are places of a template
    outside of quotes, which were read as 0.
    """

    name: str
    folder: Path
    config: Any
    role: str
    unfilled: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its config, from the repository's root."""
        return f"{self.name}/{CONFIG}"

    @cached_property
    def blanks(self) -> dict[str, str]:
        """Parameters that a template left unfilled."""
        return {name: value for name, value in self._parameters() if _BLANK.fullmatch(value)}

    @cached_property
    def values(self) -> dict[str, str]:
        """Parameters that have a value."""
        return {n: v for n, v in self._parameters() if v and n not in self.blanks}

    @property
    def versions(self) -> list[Path]:
        """The folders of its versions, the newest last."""
        folders = (p for p in self.folder.iterdir() if p.is_dir() and p.name.isdigit())
        return sorted((p for p in folders if int(p.name) > 0), key=lambda p: int(p.name))

    def _parameters(self) -> Iterator[tuple[str, str]]:
        return ((name, p.string_value) for name, p in self.config.parameters.items())


@dataclass(frozen=True, kw_only=True)
class Repository:
    """All models of a repository by name; `manifest` is there where trtbuild wrote it."""

    path: Path
    models: Mapping[str, Model]
    manifest: Manifest | None

    def of(self, role: str) -> list[Model]:
        """The models that are upstream's `role`."""
        return [model for model in self.models.values() if model.role == role]

    def resolve(self, value: str) -> Path:
        """A path in a parameter: Triton runs in the repository."""
        return self.path / value

    def engine(self, model: Model) -> Engine | None:
        """The engine of a model, None where there is none that can be read."""
        path = model.values.get("gpt_model_path")
        try:
            return _engine(self.resolve(path)) if path else None
        except ArtifactError:
            return None


_engine = cache(engines.anyones)


def read(path: Path) -> tuple[Repository, list[Finding]]:
    """The repository in `path`, and what keeps parts of it from being read.

    Raises ArtifactError where there are no models.
    """
    if not path.is_dir():
        raise ArtifactError(f"{path} is not a model repository", found="no such folder")
    manifest = None
    if (path / manifests.NAME).is_file():
        manifest = manifests.read(path, "repository")
    _engine.cache_clear()
    models, findings = {}, []
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if not (folder / CONFIG).is_file():
            found = "no file"
            do = "each folder of a repository is a model: write its config, or move it away"
            findings.append(error(f"{folder.name}/{CONFIG}", "", found, do))
            continue
        try:
            models[folder.name] = _model(folder)
        except ValueError as why:
            do = "write it as Triton's ModelConfig has it"
            findings.append(error(f"{folder.name}/{CONFIG}", "", str(why), do))
    if not models and not findings:
        raise ArtifactError(
            f"{path} is not a model repository",
            found="no model's folder in it",
            do="write one with trtbuild repo",
        )
    return Repository(path=path, models=models, manifest=manifest), findings


def _model(folder: Path) -> Model:
    try:
        text = (folder / CONFIG).read_text()
    except (OSError, UnicodeDecodeError) as why:
        raise ValueError(str(why)) from why
    bare = _QUOTED.sub("", text)
    config = pbtxt.from_text(_filled(text))
    return Model(
        name=folder.name,
        folder=folder,
        config=config,
        role=_role(folder.name, config),
        unfilled=tuple(dict.fromkeys(_BLANK.findall(bare))),
    )


def _filled(text: str) -> str:
    """The text with 0 where a template's places stand outside of quotes: it parses as anything."""
    parts, last = [], 0
    for quoted in _QUOTED.finditer(text):
        parts += [_BLANK.sub("0", text[last : quoted.start()]), quoted[0]]
        last = quoted.end()
    return "".join(parts) + _BLANK.sub("0", text[last:])


def _role(name: str, config: Any) -> str:
    if config.platform == "ensemble":
        return "ensemble"
    inputs = {tensor.name for tensor in config.input}
    if "sampling_param_max_tokens" in inputs:
        return "llmapi"
    outputs = {tensor.name for tensor in config.output}
    if outputs == {EMBEDDING} and inputs == {"input_ids", "input_lengths"}:
        return EMBEDDING
    named = name if name in _SIGNS else ""
    return next((role for role, sign in _SIGNS.items() if sign in inputs), named)
