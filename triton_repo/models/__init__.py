"""One file for each Triton model: an engine in, its ModelConfig out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton_repo.engine import Engine
from triton_repo.options import RepositoryOptions

Builder = Callable[[Engine, RepositoryOptions], Any]


def builders() -> dict[str, Builder]:
    """Every model of a repository by name, with what makes its ModelConfig."""
    from triton_repo.models import ensemble, postprocessing, preprocessing, tensorrt_llm

    modules = (preprocessing, tensorrt_llm, postprocessing, ensemble)
    return {module.NAME: module.config for module in modules}
