"""`embedding`: an encoder's engine, token ids in and an embedding out. Not one of upstream's."""

from __future__ import annotations

from typing import Any

from triton_repo.contract import EMBEDDING, contract
from triton_repo.engine import Engine
from triton_repo.models.pbtxt import (
    model_config,
    set_batching,
    set_instances,
    set_parameters,
)
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions


def config(engine: Engine, options: RepositoryOptions, names: Names) -> Any:
    """The ModelConfig of `embedding`.

    One instance: a call has all cores, and what comes meanwhile is the next call's batch.
    """
    table = contract(EMBEDDING)
    message = model_config(table, engine, options, name=names.embedding, backend="python")
    set_batching(message, engine, options)
    set_instances(message, 1)
    set_parameters(message, table, {"gpt_model_path": names.encoder_dir})
    return message
