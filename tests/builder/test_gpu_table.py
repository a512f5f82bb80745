"""Promise: a GPU is found by the names that people and drivers give it, with its own figures."""

from __future__ import annotations

import pytest

from builder import gpus
from builder.errors import LimitError


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("A100", 80),
        ("NVIDIA A100-SXM4-80GB", 80),
        ("a10g", 86),
        ("NVIDIA RTX A6000", 86),
        ("RTX 3090", 86),
        ("rtx4090", 89),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 89),
        ("NVIDIA RTX 6000 Ada Generation", 89),
        ("RTX 2000 Ada", 89),
        ("RTX 5000 Ada", 89),
        ("L4", 89),
        ("l40s", 89),
        ("NVIDIA H100 80GB HBM3", 90),
        ("h100-80gb", 90),
        ("H100 NVL", 90),
        ("H200", 90),
        ("GH200 480GB", 90),
        ("NVIDIA B200", 100),
        ("GB200", 100),
        ("b300", 103),
        ("RTX 5090", 120),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 120),
        ("DGX Spark", 121),
        ("NVIDIA GB10", 121),
        ("Tesla T4", 75),
        ("sm90", 90),
        ("SM_100a", 100),
        ("8.9", 89),
        ("compute_120", 120),
    ],
)
def test_a_gpu_is_known_by_the_names_people_and_drivers_give_it(name: str, capability: int) -> None:
    assert gpus.sm(name) == capability


@pytest.mark.parametrize(
    "name", ["", "MI300X", "A1000000", "RTX", "H1000", "Quadro RTX 5000", "CPU"]
)
def test_an_unknown_gpu_is_refused_with_the_names_that_are_known(name: str) -> None:
    with pytest.raises(LimitError, match=r"compute capability \(sm89\) or one of .*H100"):
        gpus.sm(name)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("A100", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIe-40GB"),
        ("H100-80GB", "H100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("NVIDIA GH200 480GB", "GH200-480GB"),
        ("NVIDIA GH200 144G HBM3e", "GH200-144GB"),
        ("L40S-48GB", "L40S"),
        ("L40", "L40"),
        ("a10g", "A10G"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("B200-180GB", "B200"),
        ("B200-192GB", "B200"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Server"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000"),
    ],
)
def test_cards_of_one_name_are_told_apart_by_memory_and_form(name: str, entry: str) -> None:
    assert gpus.find(name) == gpus.GPUS[entry]


@pytest.mark.parametrize(
    "name", ["sm89", "A100-64GB", "RTX 3090 Ti", "NVIDIA GeForce RTX 4090 Laptop GPU", "GB10"]
)
def test_a_card_that_is_not_in_the_table_has_no_figures_of_another(name: str) -> None:
    found = gpus.find(name)
    assert found.memory_bytes is found.bandwidth_gb_s is found.fp16_tflops is None


def test_every_gpu_is_found_by_its_own_name() -> None:
    assert {name: gpus.find(name) for name in gpus.GPUS} == gpus.GPUS
    assert all(gpus.find(name.replace("#", "4")) for name in gpus.FAMILIES)


def test_arithmetic_is_dense_and_follows_the_generation() -> None:
    """NVIDIA's H100 SXM datasheet: 1979 TFLOPS in FP16 and 3958 in FP8, both with sparsity."""
    h100 = gpus.find("H100")
    assert h100.fp16_tflops == pytest.approx(1979 / 2, abs=1)
    assert h100.fp8_tflops == pytest.approx(3958 / 2, abs=1)
    for gpu in gpus.GPUS.values():
        assert (gpu.fp8_tflops is not None) == (gpu.sm >= 89)
        assert (gpu.fp4_tflops is not None) == (gpu.sm >= 100)


@pytest.mark.parametrize(
    ("name", "mib"),
    [("H200", 143771), ("H100", 81559), ("A100", 81920), ("A10", 23028), ("L40S", 46068)],
)
def test_memory_is_what_nvidia_smi_shows(name: str, mib: int) -> None:
    assert gpus.find(name).memory_bytes == mib << 20
