"""An ensemble's steps: models, and tensors that exist and fit each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from triton_repo.lint.finding import Finding, error, warning
from triton_repo.lint.repository import Model, Repository

_INVALID = 0


def steps(repository: Repository) -> Iterator[Finding]:
    """Every step of every ensemble."""
    for model in repository.of("ensemble"):
        types = {tensor.name: tensor.data_type for tensor in model.config.input}
        optional = {tensor.name for tensor in model.config.input if tensor.optional}
        used: set[str] = set()
        # a step may stand before what makes its inputs
        made = _made(repository, model)
        for step in model.config.ensemble_scheduling.step:
            used |= set(step.input_map.values())
            place = repository.models.get(step.model_name)
            if place is None:
                do = "a step must be a model of this repository"
                yield error(model.file, f"step {step.model_name}", "no such model", do)
                continue
            yield from _inputs(model, step, place, {**types, **made}, optional)
            yield from _outputs(model, step, place)
        if model.config.ensemble_scheduling.step:
            yield from _ends(model, made, used)


def _made(repository: Repository, model: Model) -> dict[str, int]:
    """Type of each tensor that a step makes; one of a model that isn't there has none."""
    found: dict[str, int] = {}
    for step in model.config.ensemble_scheduling.step:
        place = repository.models.get(step.model_name)
        types = {t.name: t.data_type for t in place.config.output} if place else {}
        found |= {joined: types.get(name, _INVALID) for name, joined in step.output_map.items()}
    return found


def _inputs(
    model: Model, step: Any, place: Model, types: Mapping[str, int], optional: set[str]
) -> Iterator[Finding]:
    inputs = {tensor.name: tensor for tensor in place.config.input}
    where = f"step {step.model_name}"
    for name, joined in step.input_map.items():
        if name not in inputs:
            do = f"{place.name} has no such input"
            yield error(model.file, f"{where} input_map {name}", joined, do)
        elif joined not in types:
            do = "it is no input of the ensemble and no output of a step"
            yield error(model.file, f"{where} input_map {name}", joined, do)
        elif not _alike(inputs[name].data_type, types[joined]):
            do = f"its type isn't that of {place.name}'s input"
            yield error(model.file, f"{where} input_map {name}", joined, do)
        elif joined in optional and not inputs[name].optional:
            do = f"{place.name} needs what the ensemble's clients may leave out: then it fails"
            yield warning(model.file, f"{where} input_map {name}", joined, do)
    for tensor in place.config.input:
        if not tensor.optional and tensor.name not in step.input_map:
            do = f"{place.name} needs it: map it"
            yield error(model.file, f"{where} input_map {tensor.name}", "nothing", do)


def _outputs(model: Model, step: Any, place: Model) -> Iterator[Finding]:
    outputs = {tensor.name for tensor in place.config.output}
    for name, joined in step.output_map.items():
        if name not in outputs:
            do = f"{place.name} has no such output"
            yield error(model.file, f"step {step.model_name} output_map {name}", joined, do)


def _ends(model: Model, made: Mapping[str, int], used: set[str]) -> Iterator[Finding]:
    for tensor in model.config.output:
        if tensor.name not in made:
            do = "no step makes it: map an output to it, or take it out"
            yield error(model.file, f"output {tensor.name}", "nothing", do)
        elif not _alike(tensor.data_type, made[tensor.name]):
            do = "its type isn't that of the step's output"
            yield error(model.file, f"output {tensor.name} data_type", "another type", do)
    for tensor in model.config.input:
        if tensor.name not in used:
            do = "Triton refuses an input that no step takes: map it, or take it out"
            yield error(model.file, f"input {tensor.name}", "unused", do)


def _alike(one: int, other: int) -> bool:
    """Whether two types are the same; one that isn't known is reported elsewhere."""
    return _INVALID in (one, other) or one == other
