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
)

from triton_repo.contract import LOGITS, ModelContract, Tensor
from triton_repo.engine import Engine
from triton_repo.options import RepositoryOptions


def model_config(contract: ModelContract, engine: Engine, *, backend: str | None) -> Any:
    """The ModelConfig of `contract` with its tensors; a backend of None makes an ensemble."""
    kind = {"backend": backend} if backend else {"platform": "ensemble"}
    return ModelConfig(
        name=contract.name,
        max_batch_size=engine.max_batch_size,
        input=[_input(tensor, engine) for tensor in contract.inputs],
        output=[
            ModelOutput(name=t.name, data_type=data_type(t, engine), dims=t.dims)
            for t in contract.outputs
        ],
        **kind,
    )


def data_type(tensor: Tensor, engine: Engine) -> int:
    """Triton's number for the tensor's type; `logits` is the engine's."""
    name = engine.logits_dtype if tensor.dtype == LOGITS else tensor.dtype
    number: int = DataType.Value(f"TYPE_{name}")
    return number


def set_parameters(
    config: Any, contract: ModelContract, values: Mapping[str, str | int | float | None]
) -> None:
    """Write the parameters that have a value; a bool is written `true` or `false`.

    Raises ValueError for one that the contract doesn't have.
    """
    if unknown := values.keys() - set(contract.parameters):
        raise ValueError(f"{contract.name} has no parameters {sorted(unknown)}")
    for name in contract.parameters:
        value = values.get(name)
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            config.parameters[name].CopyFrom(ModelParameter(string_value=text))


def set_instances(config: Any, count: int) -> None:
    """`count` instances. The kind is CPU for engines on GPUs too: the backend places itself."""
    group = ModelInstanceGroup(count=count, kind=ModelInstanceGroup.KIND_CPU)
    config.instance_group.append(group)


def set_batching(config: Any, engine: Engine, options: RepositoryOptions) -> None:
    """Dynamic batching as upstream has it.

    Never with priority levels: queued requests then wait up to half a second between executions.
    """
    batching = config.dynamic_batching
    batching.preferred_batch_size.append(engine.max_batch_size)
    batching.max_queue_delay_microseconds = options.max_queue_delay_microseconds
    batching.default_queue_policy.max_queue_size = options.max_queue_size


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
