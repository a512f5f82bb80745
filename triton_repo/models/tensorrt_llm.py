"""`tensorrt_llm`: the engine, token ids in and out. The same for GPU and CPU engines."""

from __future__ import annotations

from typing import Any

from triton_repo.contract import contract
from triton_repo.engine import Engine
from triton_repo.models.pbtxt import (
    chosen,
    model_config,
    set_batching,
    set_instances,
    set_parameters,
)
from triton_repo.names import Names
from triton_repo.settings.options import RepositoryOptions

NAME = "tensorrt_llm"
BACKEND = "tensorrtllm"
REQUIRED = ("tokenizer_dir", "guided_decoding_backend", "xgrammar_tokenizer_info_path")
"""Parameters without which upstream's C++ backend doesn't load a model; empty ones are unset."""


def config(engine: Engine, options: RepositoryOptions, names: Names) -> Any:
    """The ModelConfig of `tensorrt_llm`, from options that `rules.settled` has completed."""
    name = names.tensorrt_llm
    message = model_config(contract(NAME), engine, options, name=name, backend=BACKEND)
    message.model_transaction_policy.decoupled = options.decoupled
    set_batching(message, engine, options)
    set_instances(message, options.tensorrt_llm_instance_count)
    set_parameters(message, contract(NAME), _parameters(options, names))
    return message


def _parameters(options: RepositoryOptions, names: Names) -> dict[str, Any]:
    values = chosen(options, contract(NAME))
    values |= {"gpt_model_path": names.engine_dir, "tokenizer_dir": names.engine_dir}
    if options.guided_decoding_backend == "none":
        values["guided_decoding_backend"] = ""
    return {**dict.fromkeys(REQUIRED, ""), **{k: v for k, v in values.items() if v is not None}}
