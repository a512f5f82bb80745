"""A contract as Triton's ModelConfig message, and that message as `config.pbtxt` and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
    ModelParameter,
    ModelQueuePolicy,
)

from triton_repo.contract import LOGITS, ModelContract, Tensor
from triton_repo.engine import Engine
from triton_repo.settings.options import SETTINGS, RepositoryOptions
from triton_repo.settings.values import text as value_text

BEYOND = {"tensorrt_llm": ("enable_trt_overlap", "recv_poll_period_ms")}
"""Parameters that upstream's C++ backend reads though its template doesn't have them."""


def model_config(
    contract: ModelContract,
    engine: Engine,
    options: RepositoryOptions,
    *,
    name: str,
    backend: str,
) -> Any:
    """The ModelConfig `name` of `contract` with its tensors."""
    return ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=max_batch_size(engine, options),
        input=[_input(tensor, engine) for tensor in contract.inputs],
        output=[
            ModelOutput(name=t.name, data_type=data_type(t, engine), dims=t.dims)
            for t in contract.outputs
        ],
    )


def max_batch_size(engine: Engine, options: RepositoryOptions) -> int:
    """Requests that Triton gives a model at once."""
    return options.triton_max_batch_size or engine.max_batch_size


def data_type(tensor: Tensor, engine: Engine) -> int:
    """Triton's number for the tensor's type; `logits` is the engine's."""
    name = engine.logits_dtype if tensor.dtype == LOGITS else tensor.dtype
    number: int = DataType.Value(f"TYPE_{name}")
    return number


def set_parameters(config: Any, contract: ModelContract, values: Mapping[str, Any]) -> None:
    """Write the parameters that have a value, in the contract's order, then those beyond it.

    Raises ValueError for one that neither the contract nor BEYOND has.
    """
    known = (*contract.parameters, *BEYOND.get(contract.name, ()))
    if unknown := values.keys() - set(known):
        raise ValueError(f"{contract.name} has no parameters {sorted(unknown)}")
    for name in known:
        value = values.get(name)
        if value is not None:
            text = value_text(value, tree=name.endswith("_choices"))
            config.parameters[name].CopyFrom(ModelParameter(string_value=text))


def chosen(options: RepositoryOptions, contract: ModelContract) -> dict[str, Any]:
    """The settings of `options` that are parameters of `contract`, under upstream's names."""
    known = {*contract.parameters, *BEYOND.get(contract.name, ())}
    return {
        each.parameter: getattr(options, each.name)
        for each in SETTINGS.values()
        if each.parameter in known
    }


def set_instances(config: Any, count: int) -> None:
    """`count` instances. The kind is CPU for engines on GPUs too: the backend places itself."""
    group = ModelInstanceGroup(count=count, kind=ModelInstanceGroup.KIND_CPU)
    config.instance_group.append(group)


def set_batching(config: Any, engine: Engine, options: RepositoryOptions) -> None:
    """Dynamic batching as upstream has it, and how long a request may wait.

    Never with priority levels: queued requests then wait up to half a second between executions.
    """
    batching = config.dynamic_batching
    batching.preferred_batch_size.append(max_batch_size(engine, options))
    batching.max_queue_delay_microseconds = options.max_queue_delay_microseconds
    policy = batching.default_queue_policy
    policy.max_queue_size = options.max_queue_size
    if options.default_timeout_microseconds or options.allow_timeout_override:
        policy.timeout_action = ModelQueuePolicy.TimeoutAction.Value(options.timeout_action)
        policy.default_timeout_microseconds = options.default_timeout_microseconds
        policy.allow_timeout_override = options.allow_timeout_override


def to_text(config: Any) -> str:
    """A ModelConfig as the text of a `config.pbtxt`, always the same for the same message."""
    text: str = text_format.MessageToString(config)
    return text


def from_text(text: str) -> Any:
    """The ModelConfig of a `config.pbtxt`. Raises ValueError where the text isn't one."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error


def _input(tensor: Tensor, engine: Engine) -> Any:
    message = ModelInput(
        name=tensor.name,
        data_type=data_type(tensor, engine),
        dims=tensor.dims,
        optional=tensor.optional,
        allow_ragged_batch=tensor.ragged,
    )
    if tensor.scalar:
        message.reshape.SetInParent()
    return message
