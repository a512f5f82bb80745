"""One file for each Triton model: an engine in, its ModelConfig out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton_repo.contract import MODELS
from triton_repo.engine import Engine
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions

Builder = Callable[[Engine, RepositoryOptions, Names], Any]


def builders() -> dict[str, Builder]:
    """Every model of an engine by upstream's name, with what makes its ModelConfig."""
    from importlib import import_module

    return {name: import_module(f"triton_repo.models.{name}").config for name in MODELS}
