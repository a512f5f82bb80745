"""`tensorrt_llm_bls`: text in, text out, and a draft engine where there is one."""

from __future__ import annotations

from typing import Any

from triton_repo.engine import Engine
from triton_repo.models.ensemble import text_model
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions

NAME = "tensorrt_llm_bls"


def config(engine: Engine, options: RepositoryOptions, names: Names) -> Any:
    """The ModelConfig of `tensorrt_llm_bls`."""
    return text_model(
        NAME,
        engine,
        options,
        names,
        accumulate_tokens=options.accumulate_tokens,
        tensorrt_llm_draft_model_name=names.draft,
    )
