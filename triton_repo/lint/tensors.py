"""Inputs and outputs: held against upstream's, and an ensemble's against those of its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.grpc.model_config_pb2 import DataType

from triton_repo.contract import EMBEDDING, LOGITS, MODELS, ModelContract, Tensor, contract
from triton_repo.engine import Engine
from triton_repo.lint.finding import Finding, error, warning
from triton_repo.lint.repository import Model, Repository
from triton_repo.llmapi import contract as llmapi

_FREE = ("encoder_input_features", "prompt_embedding_table")
"""Inputs whose type upstream's template leaves to whoever fills it in."""
_NEEDED = {"tensorrt_llm": ("output_ids", "sequence_length"), EMBEDDING: (EMBEDDING,)}
"""Outputs that a model can't do without, as upstream's C++ backend insists on its own."""


def twice(repository: Repository) -> Iterator[Finding]:
    """A tensor that is declared again."""
    for model in repository.models.values():
        for side in ("input", "output"):
            names = Counter(tensor.name for tensor in getattr(model.config, side))
            for name in (name for name, count in names.items() if count > 1):
                found = f"declared {names[name]} times"
                yield warning(model.file, f"{side} {name}", found, "declare it once")


def known(repository: Repository) -> Iterator[Finding]:
    """Types and dims as upstream's clients send and expect them."""
    for model in repository.models.values():
        if model.role not in (*MODELS, EMBEDDING, "llmapi"):
            continue
        wanted = llmapi.CONTRACT if model.role == "llmapi" else contract(model.role)
        engine = repository.engine(model)
        for side, tensors in (("input", wanted.inputs), ("output", wanted.outputs)):
            yield from _side(model, side, getattr(model.config, side), tensors, engine)
        yield from _missing(model, wanted)


def _side(
    model: Model, side: str, found: Any, wanted: Sequence[Tensor], engine: Engine | None
) -> Iterator[Finding]:
    by_name = {tensor.name: tensor for tensor in wanted}
    for message in found:
        where = f"{side} {message.name}"
        tensor = by_name.get(message.name)
        if tensor is None:
            do = "no client or model of upstream's knows it: take it out"
            yield warning(model.file, where, "a tensor that isn't upstream's", do)
            continue
        dims = tuple(message.dims)
        if dims != tensor.dims:
            do = f"clients of this model expect {list(tensor.dims)}"
            yield error(model.file, f"{where} dims", str(list(dims)), do)
        yield from _type(model, where, message, tensor, engine)


def _type(
    model: Model, where: str, message: Any, tensor: Tensor, engine: Engine | None
) -> Iterator[Finding]:
    if message.data_type == DataType.Value("TYPE_INVALID"):
        if not model.unfilled:
            yield error(model.file, f"{where} data_type", "nothing", "give its type")
        return
    found = DataType.Name(message.data_type).removeprefix("TYPE_")
    if tensor.dtype == LOGITS:
        wanted = {engine.logits_dtype} if engine else {"FP32", "FP16"}
    elif tensor.name in _FREE:
        wanted = {"FP16", "FP32", "BF16"}
    else:
        wanted = {tensor.dtype}
    if found not in wanted:
        do = f"it must be {' or '.join(f'TYPE_{each}' for each in sorted(wanted))}"
        yield error(model.file, f"{where} data_type", f"TYPE_{found}", do)


def _missing(model: Model, wanted: ModelContract) -> Iterator[Finding]:
    inputs = {tensor.name for tensor in model.config.input}
    outputs = {tensor.name for tensor in model.config.output}
    for tensor in wanted.inputs:
        if not tensor.optional and tensor.name not in inputs:
            yield error(model.file, f"input {tensor.name}", "nothing", "declare it")
    for name in _NEEDED.get(model.role, ()):
        if name not in outputs:
            do = "declare it: the backend fails every request without it"
            yield error(model.file, f"output {name}", "nothing", do)
