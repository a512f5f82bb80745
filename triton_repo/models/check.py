"""Compares a repository's `config.pbtxt` files with the contract and with the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.errors import ArtifactError
from triton_repo.contract import Tensor, contract
from triton_repo.engine import Engine
from triton_repo.models import pbtxt

_AGAIN = "write the repository again with trtbuild repo"


def check_config(repository: Path, model: str, engine: Engine) -> None:
    """Raise ArtifactError where the config of `model` doesn't keep the contract or the limits."""
    file = repository / model / "config.pbtxt"
    try:
        found = pbtxt.from_text(file.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} can't be read", found=str(error), do=_AGAIN) from error
    wanted = contract(model)
    _equal(file, "name", found.name, model)
    _tensors(file, "input", found.input, wanted.inputs, engine)
    _tensors(file, "output", found.output, wanted.outputs, engine)
    if not 0 < found.max_batch_size <= engine.max_batch_size:
        raise ArtifactError(
            f"{file}: max_batch_size must be between 1 and the engine's {engine.max_batch_size}",
            found=str(found.max_batch_size),
            do=_AGAIN,
        )
    _parameters(file, repository, found, wanted.parameters)


def _tensors(file: Path, side: str, found: Any, wanted: tuple[Tensor, ...], engine: Engine) -> None:
    _equal(file, f"{side} names", [t.name for t in found], [t.name for t in wanted])
    for message, tensor in zip(found, wanted, strict=True):
        where = f"{side} {tensor.name}"
        _equal(file, f"{where} type", message.data_type, pbtxt.data_type(tensor, engine))
        _equal(file, f"{where} dims", tuple(message.dims), tensor.dims)
        if side == "input":
            flags = (message.optional, message.HasField("reshape"), message.allow_ragged_batch)
            _equal(file, f"{where} flags", flags, (tensor.optional, tensor.scalar, tensor.ragged))


def _parameters(file: Path, repository: Path, found: Any, known: tuple[str, ...]) -> None:
    for name, parameter in found.parameters.items():
        value = parameter.string_value
        if name not in known:
            raise ArtifactError(f"{file}: parameter {name} is not known", do=_AGAIN)
        if value.startswith("${"):
            raise ArtifactError(f"{file}: parameter {name} is not filled in", found=value)
        if name in ("tokenizer_dir", "gpt_model_path") and not (repository / value).is_dir():
            raise ArtifactError(f"{file}: {name} is no folder", found=value, do=_AGAIN)


def _equal(file: Path, what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise ArtifactError(f"{file}: {what} must be {wanted!r}", found=repr(found), do=_AGAIN)
