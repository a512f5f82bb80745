"""`postprocessing`: token ids in, text out."""

from __future__ import annotations

from typing import Any

from triton_repo.contract import contract
from triton_repo.engine import Engine
from triton_repo.models.pbtxt import model_config, set_instances, set_parameters
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions

NAME = "postprocessing"


def config(engine: Engine, options: RepositoryOptions, names: Names) -> Any:
    """The ModelConfig of `postprocessing` for an engine."""
    message = model_config(
        contract(NAME), engine, options, name=names.postprocessing, backend="python"
    )
    message.dynamic_batching.SetInParent()
    # an ensemble with two instances here hands out the parts of a stream in a wrong order
    set_instances(message, 1)
    set_parameters(
        message,
        contract(NAME),
        {"tokenizer_dir": names.engine_dir, "skip_special_tokens": options.skip_special_tokens},
    )
    return message
