"""Batches, queues, instances and streams: what Triton does with a model's requests."""

from __future__ import annotations

from collections.abc import Iterator

from triton_repo.contract import EMBEDDING
from triton_repo.lint.finding import Finding, error, warning
from triton_repo.lint.repository import Model, Repository

_ENGINES = ("tensorrt_llm", EMBEDDING)
"""Those that run an engine."""
_BLS_MODELS = {
    "tensorrt_llm_model_name": "tensorrt_llm",
    "tensorrt_llm_draft_model_name": "",
}
"""Parameters of tensorrt_llm_bls that name a model, and upstream's default."""


def batches(repository: Repository) -> Iterator[Finding]:
    """Batch sizes: within the engine's, an ensemble's within its steps'."""
    for model in repository.models.values():
        size = model.config.max_batch_size
        if not model.role or _blank(model, "triton_max_batch_size"):
            continue
        if size < 1 and model.role != "llmapi":
            do = "it must be at least 1: every tensor's first dimension is the batch"
            yield error(model.file, "max_batch_size", str(size), do)
        engine = repository.engine(model) if model.role in _ENGINES else None
        if engine and size > engine.max_batch_size:
            do = f"the engine takes {engine.max_batch_size}: ask for no more, or build it for more"
            yield error(model.file, "max_batch_size", str(size), do)
        for step in model.config.ensemble_scheduling.step:
            place = repository.models.get(step.model_name)
            if place and size > place.config.max_batch_size and not place.unfilled:
                do = f"at most {place.config.max_batch_size}, which is that of {place.name}"
                yield error(model.file, "max_batch_size", str(size), do)


def instances(repository: Repository) -> Iterator[Finding]:
    """How many instances, and of which kind."""
    for model in repository.models.values():
        if model.role in ("", "ensemble"):
            continue
        groups = model.config.instance_group
        if not groups:
            do = "set instance_group count 1, kind KIND_CPU: by default there is one on each GPU"
            yield warning(model.file, "instance_group", "nothing", do)
        for group in groups:
            if group.Kind.Name(group.kind) == "KIND_GPU":
                do = "set KIND_CPU: this makes instances on each GPU, and fails without one"
                yield error(model.file, "instance_group.kind", "KIND_GPU", do)
        count = sum(group.count for group in groups)
        if model.role == "postprocessing" and count > 1 and _gets_streams(repository, model):
            do = "set 1: several hand out the parts of a stream in a wrong order"
            yield error(model.file, "instance_group.count", str(count), do)
        if model.role == "tensorrt_llm_bls" and count == 1 and repository.manifest is None:
            do = "upstream's takes one request at a time: set as many as the engine's batch size"
            yield warning(model.file, "instance_group.count", "1", do)


def queues(repository: Repository) -> Iterator[Finding]:
    """What waits, and for how long."""
    for model in repository.models.values():
        batching = model.config.dynamic_batching
        if batching.priority_levels:
            do = "leave it out: queued requests then wait up to half a second between executions"
            found = str(batching.priority_levels)
            yield warning(model.file, "dynamic_batching.priority_levels", found, do)
        limit = batching.default_queue_policy.max_queue_size
        open_ended = model.role == "tensorrt_llm" and repository.manifest is None
        if open_ended and not limit and not _blank(model, "max_queue_size"):
            do = "set how many may wait: without a limit an overload only grows"
            field = "dynamic_batching.default_queue_policy.max_queue_size"
            yield warning(model.file, field, "no limit", do)


def streams(repository: Repository) -> Iterator[Finding]:
    """Decoupled models, which streams need, and who calls them."""
    for model in repository.of("tensorrt_llm"):
        if not _decoupled(model) and not _blank(model, "decoupled_mode"):
            do = "set it to true: without it no client can stream"
            yield warning(model.file, "model_transaction_policy.decoupled", "false", do)
    for model in repository.of("tensorrt_llm_bls"):
        for parameter, default in _BLS_MODELS.items():
            name = model.values.get(parameter, default)
            field = f"parameters.{parameter}"
            if not name:
                continue
            called = repository.models.get(name)
            if called is None:
                yield error(model.file, field, name, "name a model of this repository")
            elif called.role == "tensorrt_llm" and _differ(called, model):
                do = f"let it be the same as that of {name}, which it calls"
                found = str(_decoupled(model)).lower()
                yield error(model.file, "model_transaction_policy.decoupled", found, do)


def _gets_streams(repository: Repository, model: Model) -> bool:
    """Whether a stream's parts come in requests of their own: an ensemble's, and always ours."""
    for each in repository.of("ensemble"):
        steps = {step.model_name for step in each.config.ensemble_scheduling.step}
        engines = (e for e in repository.of("tensorrt_llm") if e.name in steps)
        if model.name in steps and any(map(_decoupled, engines)):
            return True
    return repository.manifest is not None


def _decoupled(model: Model) -> bool:
    return bool(model.config.model_transaction_policy.decoupled)


def _differ(called: Model, model: Model) -> bool:
    return _decoupled(called) != _decoupled(model) and not _blank(model, "decoupled_mode")


def _blank(model: Model, place: str) -> bool:
    return place in model.unfilled
