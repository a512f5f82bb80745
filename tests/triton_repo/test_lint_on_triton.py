"""Promise: what lint calls an error, a real Triton refuses; what it warns of, Triton loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any
from urllib.request import Request, urlopen

import pytest
import upstream_template
from tiny_engine import ECHO_BACKEND, make_engine

from triton_repo import layout
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.lint import lint
from triton_repo.models.pbtxt import from_text, to_text

INT32, INT64 = 8, 9
TOO_MANY = 1000


def _map(side: str, name: str, joined: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        getattr(config.ensemble_scheduling.step[0], side)[name] = joined

    return change


def _unmap(config: Any) -> None:
    del config.ensemble_scheduling.step[0].input_map["REQUEST_OUTPUT_LEN"]


def _optional(config: Any) -> None:
    next(each for each in config.input if each.name == "max_tokens").optional = True


def _twice(config: Any) -> None:
    config.output.add().CopyFrom(config.output[0])


def _add(side: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        tensor = getattr(config, side).add()
        tensor.name, tensor.data_type = "more", INT32
        tensor.dims.append(1)

    return change


def _type(config: Any) -> None:
    next(each for each in config.input if each.name == "top_k").data_type = INT64


def _batch(config: Any) -> None:
    config.max_batch_size = TOO_MANY


def _other_model(config: Any) -> None:
    config.ensemble_scheduling.step[0].model_name = "nobody"


ENSEMBLES: dict[str, Callable[[Any], None]] = {
    "with_an_unknown_output": _map("output_map", "nonsense", "more"),
    "with_an_unknown_tensor": _map("input_map", "END_ID", "nowhere"),
    "with_another_type": _type,
    "with_too_large_a_batch": _batch,
    "with_an_input_nobody_takes": _add("input"),
    "with_an_output_nobody_makes": _add("output"),
    "without_a_required_input": _unmap,
    "with_an_unknown_model": _other_model,
    "with_an_output_twice": _twice,
    "with_an_optional_for_a_required": _optional,
}
"""Name of an ensemble → how it differs from a good one."""


@pytest.mark.triton
def test_triton_refuses_the_ensembles_that_have_errors_and_loads_all_others(
    tmp_path: Path,
) -> None:
    repository = tmp_path / "repo"
    layout.write_repository(make_engine(tmp_path / "engine"), repository)
    # upstream's: ours is none of Triton's
    engine = repository / "tensorrt_llm" / "1"
    good = Template(upstream_template.template("ensemble")).safe_substitute(
        upstream_template.places(engine)
    )
    for name, change in ENSEMBLES.items():
        config = from_text(good)
        config.name = name
        change(config)
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(to_text(config))
    wrong = {
        each.file.split("/")[0]
        for each in lint(repository, files=False)
        if each.severity == "error"
    }
    config = LaunchConfig(
        repository=repository,
        log_path=tmp_path / "triton.log",
        python_backends={"tensorrtllm": ECHO_BACKEND},
        grace_s=3,
        extra_arguments=("--exit-on-error=false", "--strict-readiness=false"),
    )
    with Triton(config) as triton:
        address = f"http://{triton.http_address}/v2/repository/index"
        with urlopen(Request(address, data=b"{}"), timeout=20) as response:
            states = {each["name"]: each.get("state") for each in json.load(response)}
    refused = {name for name, state in states.items() if state != "READY"}
    assert wrong == refused
    assert ENSEMBLES.keys() - refused == {
        "with_an_output_twice",
        "with_an_optional_for_a_required",
    }
