"""Promise: GPUs and driver are what nvidia-smi says, in every form that it says it in.

The nvidia-smi here is a stand-in (see nvidia_smi.py): no real one was at hand.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nvidia_smi
import pytest
from nvidia_smi import A100, FIELDS, H100, L4, NEW_BANNER, NvidiaSmi, gpu

from builder import machine
from builder.machine import ask, smi
from builder.machine.gpu import InstalledGpu, visible
from builder.machine.resources import memory
from builder.machine.smi import Nvidia, nvidia

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What we make of an nvidia-smi that says this."""

    def run(**said: Any) -> Nvidia:
        NvidiaSmi(**said).install(tmp_path / "bin", monkeypatch)
        return nvidia()

    return run


def test_several_gpus_are_read_with_memory_and_capability(says: Any) -> None:
    found = says(gpus=(H100, L4))
    assert [(gpu.index, gpu.name, gpu.sm) for gpu in found.gpus] == [
        (0, "NVIDIA H100 80GB HBM3", 90),
        (1, "NVIDIA L4", 89),
    ]
    assert found.gpus[0].memory_bytes == 81559 * MIB
    assert found.gpus[0].free_bytes == 80994 * MIB
    assert (found.driver, found.cuda) == ("590.48.01", "13.1")
    assert (found.problem, found.hidden, found.present) == (None, 0, True)
    assert machine.gpus() == list(found.gpus)


def test_the_newest_banner_is_read_too(says: Any) -> None:
    assert says(gpus=(L4,), driver="610.43.02", cuda="13.3", banner=NEW_BANNER).cuda == "13.3"


def test_a_driver_without_compute_cap_leaves_it_to_the_name(says: Any) -> None:
    fields = tuple(name for name in FIELDS if name not in ("compute_cap", "mig.mode.current"))
    found = says(gpus=(A100, L4), driver="470.256.02", cuda="11.4", fields=fields)
    assert [gpu.sm for gpu in found.gpus] == [80, 89]


def test_a_gpu_that_neither_driver_nor_table_knows_has_no_capability(says: Any) -> None:
    [found] = says(gpus=(gpu("NVIDIA Graphics Device", total="8192"),)).gpus
    assert found.sm == 0


def test_a_name_may_hold_commas(says: Any) -> None:
    [found] = says(gpus=(gpu("NVIDIA RTX 6000, Ada Generation", cap="8.9", total="49140"),)).gpus
    assert (found.name, found.sm) == ("NVIDIA RTX 6000, Ada Generation", 89)


def test_a_gpu_that_shares_the_hosts_memory_has_that(says: Any) -> None:
    [found] = says(gpus=(gpu("NVIDIA GB10", cap="12.1", total="[N/A]"),)).gpus
    assert (found.sm, found.memory_bytes) == (121, memory().total_bytes)
    assert 0 < found.free_bytes <= found.memory_bytes


def test_the_slices_of_a_gpu_with_mig_take_its_place(says: Any) -> None:
    slices = [("3g.20gb", "MIG-aaaa"), ("1c.2g.10gb", "MIG-bbbb"), ("1g.5gb+me", "MIG-cccc")]
    parted = A100 | {"mig.mode.current": "Enabled", "slices": slices}
    found = says(gpus=(parted, A100))
    assert [(gpu.index, gpu.mig, gpu.memory_bytes) for gpu in found.gpus] == [
        (0, "3g.20gb", 20 * GIB),
        (0, "1c.2g.10gb", 10 * GIB),
        (0, "1g.5gb+me", 5 * GIB),
        (1, None, 40960 * MIB),
    ]
    assert {gpu.sm for gpu in found.gpus} == {80}


def test_mig_without_slices_is_no_gpu_and_said(says: Any) -> None:
    found = says(gpus=(A100 | {"mig.mode.current": "Enabled"},))
    assert found.gpus == ()
    assert found.problem == "GPU 0 has MIG on and no slices"
    assert "nvidia-smi mig" in found.do


def test_a_gpu_that_gives_no_name_is_left_out_and_said(says: Any) -> None:
    found = says(gpus=(H100, H100 | {"name": "[GPU requires reset]"}))
    assert [gpu.index for gpu in found.gpus] == [0]
    assert found.problem == "GPU 1 doesn't answer"


@pytest.mark.parametrize(
    ("wanted", "indexes"),
    [
        ("1", [1]),
        ("2,0", [2, 0]),
        ("0,0", [0]),
        ("GPU-00000001", [1]),
        ("0,7,1", [0]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_counts_as_cuda_counts_it(wanted: str, indexes: list[int]) -> None:
    three = [
        InstalledGpu(
            index=at, name="NVIDIA L4", sm=89, memory_bytes=1, free_bytes=1, uuid=f"GPU-{at:08d}-a"
        )
        for at in range(3)
    ]
    assert [gpu.index for gpu in visible(three, wanted)] == indexes


def test_gpus_that_cuda_may_not_use_are_counted(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    says(gpus=(H100, H100, L4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = nvidia()
    assert [gpu.index for gpu in found.gpus] == [1]
    assert found.hidden == 2


TOPOLOGY = (
    "\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV18\tSYS\tPIX\t0-55\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tPHB\tPXB\t0-55\t0\t\tN/A\n"
    "GPU2\tSYS\tPHB\t X \tNODE\t56-111\t1\t\tN/A\n"
    "NIC0\tPIX\tPXB\tNODE\t X \n\n"
    "Legend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n"
)


def test_how_gpus_are_joined_is_read_from_the_topology(says: Any) -> None:
    found = says(gpus=(H100, H100, H100), topology=TOPOLOGY)
    assert found.links == {(0, 1): "NV18", (0, 2): "SYS", (1, 2): "PHB"}


def test_a_topology_that_isnt_told_is_unknown(says: Any) -> None:
    assert says(gpus=(H100, H100), topology="").links is None
    assert says(gpus=(H100,), topology=TOPOLOGY).links is None


@pytest.mark.parametrize(
    ("failure", "code", "do"),
    [
        (
            "Failed to initialize NVML: Driver/library version mismatch\n"
            "NVML library version: 570.133",
            18,
            "reboot",
        ),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make"
            " sure that the latest NVIDIA driver is installed and running.",
            9,
            "modprobe nvidia",
        ),
        ("No devices were found", 6, "--gpus all"),
        ("No devices were found", 0, "--gpus all"),
        ("Failed to initialize NVML: Unknown Error", 255, "restart the container"),
        ("Failed to initialize NVML: Insufficient Permissions", 4, "/dev/nvidia"),
        (
            "Unable to determine the device handle for GPU0000:65:00.0: GPU is lost.  Reboot the"
            " system to recover this GPU",
            15,
            "Xid",
        ),
        ("something new", 255, "dmesg"),
    ],
)
def test_each_failure_of_nvidia_smi_is_told_with_its_remedy(
    failure: str, code: int, do: str, says: Any
) -> None:
    found = says(failure=failure, code=code)
    assert found.gpus == ()
    assert found.present
    assert failure.splitlines()[0] in found.problem
    assert do in found.do


def test_an_nvidia_smi_that_hangs_is_given_up(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "TIMEOUT_S", 0.5)
    begin = time.monotonic()
    found = says(gpus=(H100,), hangs=True)
    assert time.monotonic() - begin < 30  # of its 60
    assert "no answer in 0.5 s" in found.problem
    assert "reboot" in found.do


def test_without_a_driver_nothing_is_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(smi, "_DRIVER_FILE", tmp_path / "version")
    found = nvidia()
    assert (found.present, found.gpus, found.problem) == (False, (), "no NVIDIA driver")


def test_a_container_with_a_driver_but_no_nvidia_smi_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "version").touch()
    monkeypatch.setattr(smi, "_DRIVER_FILE", tmp_path / "version")
    found = nvidia()
    assert found.present
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in str(found.do)


def test_a_program_that_isnt_one_is_a_failure_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi.program(tmp_path / "nvidia-smi", "not a program")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "doesn't start" in str(nvidia().problem)
    assert replace(nvidia(), do=None).gpus == ()
