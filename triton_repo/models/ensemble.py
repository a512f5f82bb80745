"""`ensemble`: preprocessing, tensorrt_llm and postprocessing as one model, for plain clients."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelEnsembling

from triton_repo.contract import Step, contract
from triton_repo.engine import Engine
from triton_repo.models.pbtxt import model_config
from triton_repo.options import RepositoryOptions

NAME = "ensemble"


def config(engine: Engine, options: RepositoryOptions) -> Any:
    """The ModelConfig of `ensemble`; it is decoupled because its step `tensorrt_llm` is."""
    message = model_config(contract(NAME), engine, backend=None)
    message.ensemble_scheduling.step.extend(_step(step) for step in contract(NAME).steps)
    return message


def _step(step: Step) -> Any:
    return ModelEnsembling.Step(
        model_name=step.model, model_version=-1, input_map=step.inputs, output_map=step.outputs
    )
