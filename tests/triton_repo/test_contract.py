"""Promise: clients written for upstream's repository fit ours, but where a row says why not.

`upstream_models.json` is upstream's own table, read from its config.pbtxt files of TensorRT-LLM
1.2; it is independent of ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from triton_repo.contract import DIFFERENCES, MODELS, Tensor, contract

UPSTREAM: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("upstream_models.json").read_text()
)
KINDS = ("input ", "output ", "parameter ", "type of ")


def spec(tensor: Tensor) -> str:
    flags = "".join(
        f" {flag}" for flag in ("optional", "scalar", "ragged") if getattr(tensor, flag)
    )
    return f"{tensor.dtype}[{','.join(map(str, tensor.dims))}]{flags}"


def unlike(model: str) -> set[str]:
    """What of a model isn't upstream's, in the words of a Difference's `where`."""
    found, ours, theirs = set[str](), contract(model), UPSTREAM[model]
    for side, tensors in (("input", ours.inputs), ("output", ours.outputs)):
        here, there = {t.name: spec(t) for t in tensors}, dict(theirs[f"{side}s"])
        if len(there) < len(theirs[f"{side}s"]):
            names = [name for name, _ in theirs[f"{side}s"]]
            found |= {f"{side} {name}" for name in names if names.count(name) > 1}
        for name in here.keys() | there.keys():
            if here.get(name) == there.get(name):
                continue
            filled = there.get(name, "").startswith("${")
            found.add(f"type of {name}" if filled else f"{side} {name}")
            if filled:
                assert here[name].partition("[")[2] == there[name].partition("[")[2]
    parameters = set(ours.parameters) ^ set(theirs["parameters"])
    return found | {f"parameter {name}" for name in parameters}


@pytest.mark.parametrize("model", MODELS)
def test_what_is_not_upstreams_has_a_row_that_says_why(model: str) -> None:
    told = {
        where
        for row in DIFFERENCES
        if model in row.model.split(", ")
        for where in row.where.split(", ")
        if where.startswith(KINDS)
    }
    assert unlike(model) <= told


def test_no_row_tells_of_what_is_upstreams() -> None:
    for row in DIFFERENCES:
        models = row.model.split(", ")
        for where in row.where.split(", "):
            if where.startswith(KINDS):
                assert any(where in unlike(model) for model in models), where


def test_nothing_of_upstreams_is_gone() -> None:
    for model in MODELS:
        ours = contract(model)
        for side, tensors in (("inputs", ours.inputs), ("outputs", ours.outputs)):
            assert {name for name, _ in UPSTREAM[model][side]} <= {t.name for t in tensors}
        assert set(UPSTREAM[model]["parameters"]) <= set(ours.parameters)


@pytest.mark.parametrize("model", MODELS)
def test_no_name_is_declared_twice(model: str) -> None:
    for side in (contract(model).inputs, contract(model).outputs):
        names = [tensor.name for tensor in side]
        assert len(names) == len(set(names))


def test_every_difference_says_why() -> None:
    assert all(d.why and d.upstream != d.ours for d in DIFFERENCES)


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_a_model_that_takes_text_passes_each_input_on_or_refuses_it(model: str) -> None:
    from triton_repo.runtime.text_model import request

    own = {t.name: t.dtype for t in contract(model).inputs}
    known = {*request.PREPROCESSING, *request.PASSED, *request.OURS, *request.REFUSED}
    assert own.keys() <= known
    assert model == "ensemble" or own.keys() == known
    engine = {t.name: t.dtype for t in contract("tensorrt_llm").inputs}
    made = {t.name: t.dtype for t in contract("preprocessing").outputs}
    taken = {t.name: t.dtype for t in contract("preprocessing").inputs}
    assert all(engine[theirs] == own.get(n, engine[theirs]) for n, theirs in request.PASSED.items())
    assert all(engine[theirs] == made[name] for name, theirs in request.PREPROCESSED.items())
    assert all(
        taken[theirs] == own.get(n, taken[theirs]) for n, theirs in request.PREPROCESSING.items()
    )
