"""`tensorrt_llm` of target `llmapi` as Triton's ModelConfig."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
)

from triton_repo.llmapi.contract import CONTRACT
from triton_repo.names import Names


def config(names: Names) -> Any:
    """The ModelConfig of the one model: decoupled, since answers are streamed, and one instance.

    Requests aren't batched by Triton: the LLM API does that, step by step.
    """
    return ModelConfig(
        name=names.tensorrt_llm,
        backend="python",
        max_batch_size=1,
        input=[
            ModelInput(name=t.name, data_type=_type(t.dtype), dims=t.dims, optional=t.optional)
            for t in CONTRACT.inputs
        ],
        output=[
            ModelOutput(name=t.name, data_type=_type(t.dtype), dims=t.dims)
            for t in CONTRACT.outputs
        ],
        instance_group=[ModelInstanceGroup(count=1, kind=ModelInstanceGroup.KIND_CPU)],
        model_transaction_policy={"decoupled": True},
    )


def _type(dtype: str) -> int:
    number: int = DataType.Value(f"TYPE_{dtype}")
    return number
