"""`preprocessing`: text in, token ids and the tables of stop and bad words out."""

from __future__ import annotations

from typing import Any

from triton_repo.contract import contract
from triton_repo.engine import Engine
from triton_repo.models.pbtxt import (
    model_config,
    set_batching,
    set_instances,
    set_parameters,
)
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions

NAME = "preprocessing"


def config(engine: Engine, options: RepositoryOptions, names: Names) -> Any:
    """The ModelConfig of `preprocessing` for an engine."""
    message = model_config(
        contract(NAME), engine, options, name=names.preprocessing, backend="python"
    )
    set_batching(message, engine, options)
    set_instances(message, options.preprocessing_instance_count)
    set_parameters(
        message,
        contract(NAME),
        {
            "tokenizer_dir": names.engine_dir,
            "gpt_model_path": names.engine_dir,
            "add_special_tokens": options.add_special_tokens,
        },
    )
    return message
