from __future__ import annotations

import pytest

from triton_repo.contract import DIFFERENCES, MODELS, ModelContract, Tensor, contract


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        ("preprocessing", 14, 20),
        ("tensorrt_llm", 62, 21),
        ("postprocessing", 2, 1),
        ("ensemble", 36, 19),
    ],
)
def test_every_tensor_of_upstream_is_there(model: str, inputs: int, outputs: int) -> None:
    found = contract(model)
    assert (len(found.inputs), len(found.outputs)) == (inputs, outputs)


@pytest.mark.parametrize("model", MODELS)
def test_no_name_is_declared_twice(model: str) -> None:
    for side in (contract(model).inputs, contract(model).outputs):
        names = [tensor.name for tensor in side]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (
            "tensorrt_llm",
            Tensor(name="input_ids", dtype="INT32", dims=(-1,), optional=True, ragged=True),
        ),
        ("tensorrt_llm", Tensor(name="input_lengths", dtype="INT32", dims=(1,), scalar=True)),
        (
            "tensorrt_llm",
            Tensor(name="seed", dtype="UINT64", dims=(1,), optional=True, scalar=True),
        ),
        (
            "tensorrt_llm",
            Tensor(name="stop_words_list", dtype="INT32", dims=(2, -1), optional=True, ragged=True),
        ),
        ("ensemble", Tensor(name="text_input", dtype="STRING", dims=(1,))),
        ("ensemble", Tensor(name="stream", dtype="BOOL", dims=(1,), optional=True)),
        ("preprocessing", Tensor(name="QUERY", dtype="STRING", dims=(1,))),
        ("postprocessing", Tensor(name="TOKENS_BATCH", dtype="INT32", dims=(-1, -1))),
    ],
)
def test_a_tensor_is_as_upstream_has_it(model: str, wanted: Tensor) -> None:
    assert wanted in contract(model).inputs


def _types(model: ModelContract) -> tuple[dict[str, str], dict[str, str]]:
    return {t.name: t.dtype for t in model.inputs}, {t.name: t.dtype for t in model.outputs}


def test_the_ensemble_joins_tensors_that_exist_and_have_the_same_type() -> None:
    own = contract("ensemble")
    known, results = _types(own)
    for step in own.steps:
        inputs, outputs = _types(contract(step.model))
        for name, joined in step.inputs.items():
            assert inputs[name] == known[joined], (step.model, name)
        for name, joined in step.outputs.items():
            known[joined] = outputs[name]
    assert results.items() <= known.items()


def test_the_ensemble_uses_each_of_its_inputs_and_makes_each_of_its_outputs() -> None:
    own = contract("ensemble")
    used = {joined for step in own.steps for joined in step.inputs.values()}
    made = {joined for step in own.steps for joined in step.outputs.values()}
    assert {t.name for t in own.inputs} <= used
    assert {t.name for t in own.outputs} <= made


def test_required_inputs_of_a_step_are_always_there() -> None:
    own = contract("ensemble")
    always = {t.name for t in own.inputs if not t.optional}
    for step in own.steps:
        always |= set(step.outputs.values())
    for step in own.steps:
        required = {t.name for t in contract(step.model).inputs if not t.optional}
        assert {step.inputs[name] for name in required} <= always


def test_every_difference_says_why() -> None:
    assert all(d.why and d.upstream != d.ours for d in DIFFERENCES)
