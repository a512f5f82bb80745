"""Promise: doctor says what a machine can build and serve, and what it lacks for the rest.

GPUs, TensorRT-LLM and Triton with NVIDIA's backend are stand-ins; Triton and OpenVINO for the CPU
are real.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from stand_in_machine import DOCKER, NO_GPU, TENSORRT_LLM

from builder.machine import InstalledGpu, Machine, Nvidia
from builder.machine.resources import host
from trtbuild import diagnosis
from trtbuild.commands.doctor import doctor
from trtbuild.diagnosis import diagnose

GIB = 1 << 30
GPU = InstalledGpu(index=0, name="NVIDIA L4", sm=89, memory_bytes=22 * GIB, free_bytes=22 * GIB)
LAPTOP = Machine(nvidia=NO_GPU, tensorrt_llm=None, container=None, host=host())
WITH_GPU = replace(LAPTOP, nvidia=Nvidia(gpus=(GPU,), driver="590.44.01", cuda="13.1"))


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.fixture
def nvidias_triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "backends" / "tensorrtllm").mkdir(parents=True)
    server = tmp_path / "bin" / "tritonserver"
    server.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(server.parent))


def possible(machine: Machine) -> dict[str, str]:
    """What becomes of each target: it is served, only built, or neither."""
    return {
        each.name: "serves" if each.serves else "builds" if each.builds else "no"
        for each in diagnose(machine).targets
    }


def lacks(machine: Machine, target: str) -> str:
    [found] = [each for each in diagnose(machine).targets if each.name == target]
    assert not found.serves
    return found.do


def test_a_laptop_runs_openvino_and_is_told_what_the_others_need() -> None:
    assert possible(LAPTOP) == {
        "openvino": "serves",
        "tensorrt-llm": "no",
        "tensorrt-llm in a container": "no",
        "llmapi": "builds",
    }
    assert "NVIDIA GPU" in lacks(LAPTOP, "tensorrt-llm")
    assert "install docker" in lacks(LAPTOP, "tensorrt-llm in a container")
    assert lacks(LAPTOP, "llmapi").startswith("to serve it: it needs an NVIDIA GPU")


def test_a_gpu_and_tensorrt_llm_build_natively(nvidias_triton: None) -> None:
    found = possible(replace(WITH_GPU, tensorrt_llm=TENSORRT_LLM))
    assert found == {
        "openvino": "builds",
        "tensorrt-llm": "serves",
        "tensorrt-llm in a container": "no",
        # TensorRT-LLM 1.2 doesn't know all of its settings
        "llmapi": "builds",
    }


def test_a_compiler_without_nvidias_triton_builds_and_serves_elsewhere(no_triton: None) -> None:
    machine = replace(WITH_GPU, tensorrt_llm=TENSORRT_LLM)
    assert possible(machine)["tensorrt-llm"] == "builds"
    assert lacks(machine, "tensorrt-llm") == "to serve it: work in Triton's container"


def test_a_gpu_and_docker_build_in_a_container() -> None:
    machine = replace(WITH_GPU, container=DOCKER)
    found = possible(machine)
    assert (found["tensorrt-llm"], found["tensorrt-llm in a container"]) == ("no", "serves")
    assert found["llmapi"] == "serves"
    assert "install TensorRT-LLM 1.2.1" in lacks(machine, "tensorrt-llm")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"container": replace(DOCKER, nvidia=False)}, "NVIDIA Container Toolkit"),
        ({"container": replace(DOCKER, problem="no daemon", do="start it")}, "start it"),
        ({"nvidia": replace(WITH_GPU.nvidia, driver="535.288.01")}, "580.65.06"),
        ({"nvidia": replace(WITH_GPU.nvidia, gpus=(replace(GPU, sm=75),))}, "SM 80"),
    ],
)
def test_what_a_container_lacks_is_named(changes: dict[str, Any], words: str) -> None:
    machine = replace(WITH_GPU, **{"container": DOCKER, **changes})
    assert words in lacks(machine, "tensorrt-llm in a container")


def test_a_newer_tensorrt_llm_serves_llmapi_only() -> None:
    newer = replace(TENSORRT_LLM, version="1.3.0rc23", has_build=False)
    found = possible(replace(WITH_GPU, tensorrt_llm=newer))
    assert (found["tensorrt-llm"], found["llmapi"]) == ("no", "serves")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, machine: Machine) -> Result:
    monkeypatch.setattr(diagnosis, "this_machine", lambda: machine)
    return CliRunner().invoke(doctor, arguments)


def test_it_exits_with_1_only_where_nothing_is_possible(
    no_triton: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an engine can be built here without a Triton
    assert run(monkeypatch, machine=LAPTOP).exit_code == 0
    monkeypatch.setattr(diagnosis, "_installed", lambda package: None)
    assert run(monkeypatch, machine=LAPTOP).exit_code == 1
    assert run(monkeypatch, machine=replace(WITH_GPU, container=DOCKER)).exit_code == 0


def test_piped_it_is_plain_text_with_every_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, machine=LAPTOP)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert any(line.split() == ["yes", "openvino"] for line in lines)
    found = diagnose(LAPTOP)
    for each in found.findings:
        assert any(line.split()[:1] == [each.level] and each.name in line for line in lines)
        assert each.do in result.stdout


def test_json_has_every_finding_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    report = json.loads(run(monkeypatch, "--json", machine=WITH_GPU).stdout)
    assert report["possible"] is True
    assert {each["level"] for each in report["findings"]} <= {"ok", "warning", "problem"}
    gpus = [each["found"] for each in report["findings"] if each["name"] == "GPU"]
    assert gpus == ["0: NVIDIA L4 (SM 89), 22.0 GiB free of 22.0 GiB"]
    assert [each["name"] for each in report["targets"]] == [
        *("openvino", "tensorrt-llm", "tensorrt-llm in a container", "llmapi"),
    ]


def test_this_machine_is_diagnosed_as_it_is() -> None:
    result = CliRunner().invoke(doctor, ["--json"])
    report = json.loads(result.stdout)
    names = {each["name"] for each in report["findings"]}
    assert {"GPU", "Triton", "OpenVINO", "Python", "CPU", "host memory"} <= names
    assert result.exit_code == (0 if report["possible"] else 1)
