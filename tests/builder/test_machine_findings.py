"""Promise: each part of a machine is judged by what NVIDIA's guides ask for, with a remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stand_in_machine import DOCKER, NO_GPU, TENSORRT_LLM

from builder.machine import (
    ContainerEngine,
    Host,
    InstalledGpu,
    Machine,
    Nvidia,
)
from builder.machine.finding import Finding
from builder.machine.findings import driver_trouble, findings, gpus_that_run
from builder.machine.resources import HostMemory

MIB, GIB = 1 << 20, 1 << 30
HOST = Host(
    memory=HostMemory(total_bytes=64 * GIB, available_bytes=48 * GIB),
    shm_bytes=32 * GIB,
    shm_free_bytes=32 * GIB,
    memlock_bytes=None,
    cpu="AMD EPYC",
    cores=16,
    cpu_flags=frozenset({"avx2", "avx512_bf16", "fma"}),
)
LAPTOP = Machine(nvidia=NO_GPU, tensorrt_llm=None, container=None, host=HOST)


def gpu(index: int = 0, sm: int = 90, **other: Any) -> InstalledGpu:
    sizes = {"memory_bytes": 80 * GIB, "free_bytes": 79 * GIB, "name": "NVIDIA H100", **other}
    return InstalledGpu(index=index, sm=sm, **sizes)


SERVER = Machine(
    nvidia=Nvidia(gpus=(gpu(0), gpu(1)), driver="590.44.01", cuda="13.1", links={(0, 1): "NV18"}),
    tensorrt_llm=TENSORRT_LLM,
    container=DOCKER,
    host=HOST,
)


def of(machine: Machine, name: str) -> Finding:
    """The finding of a part; the worst where there are several."""
    found = [each for each in findings(machine, {}) if each.name == name]
    order = ("problem", "warning", "ok")
    return min(found, key=lambda each: order.index(each.level))


def with_host(machine: Machine, **changes: Any) -> Machine:
    return replace(machine, host=replace(machine.host, **changes))


def with_nvidia(**changes: Any) -> Machine:
    return replace(SERVER, nvidia=replace(SERVER.nvidia, **changes))


def test_a_good_server_has_nothing_to_do() -> None:
    found = findings(SERVER, {"disk": Path("/")})
    assert [each for each in found if each.name != "disk" and (each.level != "ok" or each.do)] == []
    assert "2 GPUs" not in str(found)
    assert {each.name for each in found} == {
        *("GPU", "driver", "GPU links", "TensorRT-LLM", "containers", "shared memory"),
        *("memlock", "host memory", "CPU", "disk"),
    }


def test_a_laptop_without_a_gpu_has_no_problem() -> None:
    assert "problem" not in {each.level for each in findings(LAPTOP, {})}
    assert of(LAPTOP, "GPU").level == "warning"
    assert "openvino" in of(LAPTOP, "GPU").do


def test_a_driver_that_fails_is_a_problem_with_its_remedy() -> None:
    failed = Nvidia(problem="nvidia-smi: Driver/library version mismatch", do="reboot")
    found = of(replace(LAPTOP, nvidia=failed), "GPU")
    assert (found.level, found.do) == ("problem", "reboot")
    assert "version mismatch" in found.found


@pytest.mark.parametrize(("sm", "runs"), [(75, 0), (80, 2), (90, 2), (121, 2), (0, 2)])
def test_tensorrt_llm_runs_from_ampere_on(sm: int, runs: int) -> None:
    machine = with_nvidia(gpus=(gpu(0, sm), gpu(1, sm)))
    assert gpus_that_run(machine) == runs
    assert (of(machine, "GPU").level == "problem") is (runs == 0)


def test_hidden_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = of(with_nvidia(gpus=(), hidden=2), "GPU")
    assert (found.level, found.found) == ("warning", "CUDA_VISIBLE_DEVICES= hides 2")


def test_mig_is_told() -> None:
    assert "one slice" in of(with_nvidia(gpus=(gpu(mig="3g.40gb"),)), "MIG").found


@pytest.mark.parametrize(
    ("driver", "old"), [("535.288.01", True), ("575.57.08", True), ("580.65.06", False)]
)
def test_a_driver_older_than_cuda_13_needs_is_told(driver: str, old: bool) -> None:
    machine = with_nvidia(driver=driver)
    assert (driver_trouble(machine) is not None) is old
    assert of(machine, "driver").level == ("warning" if old else "ok")


def test_gpus_that_only_pcie_joins_are_told() -> None:
    links = {(0, 1): "NV4", (0, 2): "SYS", (1, 2): "PHB"}
    found = of(with_nvidia(gpus=(gpu(0), gpu(1), gpu(2)), links=links), "GPU links")
    assert found.level == "warning"
    assert found.found == "no NVLink: 0-2 SYS, 1-2 PHB"
    assert "--pp" in found.do


def test_a_tensorrt_llm_without_its_compiler_is_told() -> None:
    newer = replace(TENSORRT_LLM, version="1.3.0rc23", has_build=False)
    found = of(replace(SERVER, tensorrt_llm=newer), "TensorRT-LLM")
    assert found.level == "warning"
    assert "no trtllm-build" in found.found
    assert "1.2.1" in found.do


@pytest.mark.parametrize(
    ("engine", "level", "do"),
    [
        (None, "warning", "install docker"),
        (replace(DOCKER, problem="no daemon", do="start it"), "warning", "start it"),
        (replace(DOCKER, nvidia=False), "problem", "Container Toolkit"),
        (DOCKER, "ok", ""),
    ],
)
def test_a_container_engine_must_answer_and_hand_out_gpus(
    engine: ContainerEngine | None, level: str, do: str
) -> None:
    found = of(replace(SERVER, container=engine), "containers")
    assert found.level == level
    assert do in found.do
    assert of(replace(LAPTOP, container=replace(DOCKER, nvidia=False)), "containers").level == "ok"


@pytest.mark.parametrize(
    ("machine", "shm_bytes", "level"),
    [
        (LAPTOP, 64 * MIB, "ok"),
        (LAPTOP, 32 * MIB, "problem"),
        (SERVER, 64 * MIB, "warning"),
        (SERVER, 3 * GIB, "warning"),
        (SERVER, 4 * GIB, "ok"),
    ],
)
def test_shared_memory_is_enough_at_2_gib_and_1_for_each_gpu(
    machine: Machine, shm_bytes: int, level: str
) -> None:
    found = of(with_host(machine, shm_bytes=shm_bytes), "shared memory")
    assert found.level == level
    if level != "ok" and machine is SERVER:
        assert "--shm-size=4096m" in found.do


def test_a_memlock_limit_matters_only_between_gpus() -> None:
    assert of(with_host(SERVER, memlock_bytes=8 * MIB), "memlock").level == "warning"
    assert "--ulimit memlock=-1" in of(with_host(SERVER, memlock_bytes=8 * MIB), "memlock").do
    assert of(with_host(LAPTOP, memlock_bytes=8 * MIB), "memlock").level == "ok"


def test_a_containers_memory_limit_is_named() -> None:
    memory = HostMemory(total_bytes=4 * GIB, available_bytes=GIB, limit_bytes=4 * GIB)
    found = of(with_host(LAPTOP, memory=memory), "host memory")
    assert found.level == "warning"
    assert found.found == "1.0 GiB free of 4.0 GiB, the container's limit"


def test_the_vector_instructions_that_openvino_uses_are_named() -> None:
    assert of(LAPTOP, "CPU").found == "AMD EPYC, 16 cores, avx2, avx512_bf16"
    assert of(with_host(LAPTOP, cpu_flags=frozenset({"sse4_2"})), "CPU").level == "warning"
