"""`preprocessing`: text in, token ids and the tables of stop and bad words out."""

from __future__ import annotations

from typing import Any

from triton_repo.contract import contract
from triton_repo.engine import ENGINE_DIR, Engine
from triton_repo.models.pbtxt import (
    model_config,
    set_batching,
    set_instances,
    set_parameters,
)
from triton_repo.options import RepositoryOptions

NAME = "preprocessing"


def config(engine: Engine, options: RepositoryOptions) -> Any:
    """The ModelConfig of `preprocessing` for an engine."""
    message = model_config(contract(NAME), engine, backend="python")
    set_batching(message, engine, options)
    set_instances(message, options.preprocessing_instance_count)
    set_parameters(
        message,
        contract(NAME),
        {
            "tokenizer_dir": ENGINE_DIR,
            "gpt_model_path": ENGINE_DIR,
            "add_special_tokens": options.add_special_tokens,
        },
    )
    return message
