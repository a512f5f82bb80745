"""`ensemble`: text in, text out, for plain clients.

Not an ensemble of Triton's, though clients can't tell: those keep no state, so that a letter that
two tokens share breaks in a stream, and don't pass on that a client has gone.
"""

from __future__ import annotations

from typing import Any

from triton_repo.contract import contract
from triton_repo.engine import Engine
from triton_repo.models.pbtxt import model_config, set_instances, set_parameters
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions

NAME = "ensemble"


def config(engine: Engine, options: RepositoryOptions, names: Names) -> Any:
    """The ModelConfig of `ensemble`."""
    return text_model(NAME, engine, options, names)


def text_model(
    model: str, engine: Engine, options: RepositoryOptions, names: Names, **more: Any
) -> Any:
    """The ModelConfig of a model that calls the engine's, decoupled where that is."""
    message = model_config(contract(model), engine, options, name=names.of(model), backend="python")
    message.model_transaction_policy.decoupled = options.decoupled
    set_instances(message, options.bls_instance_count)
    set_parameters(
        message,
        contract(model),
        {
            "tensorrt_llm_model_name": names.tensorrt_llm,
            "tokenizer_dir": names.engine_dir,
            "gpt_model_path": names.engine_dir,
            "add_special_tokens": options.add_special_tokens,
            "skip_special_tokens": options.skip_special_tokens,
            "exclude_input_in_output": options.exclude_input_in_output,
            **more,
        },
    )
    return message
