"""Promise: a recipe that the target GPU can't run is refused by name, with what runs there."""

from __future__ import annotations

import pytest

from builder.errors import LimitError
from quantize import gpus
from quantize.recipes import RECIPES

INTEGER = ("int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo")


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
    ("gpu", "refused"),
    [
        ("T4", set(RECIPES)),
        ("A100", {"fp8", "w4a8_awq", "nvfp4", "auto"}),
        ("L40S", {"nvfp4"}),
        ("H100", {"nvfp4"}),
        ("B200", {*INTEGER, "auto"}),
        ("B300", {*INTEGER, "auto"}),
        ("RTX 5090", set()),
    ],
)
def test_a_gpu_refuses_the_recipes_that_it_cannot_run(gpu: str, refused: set[str]) -> None:
    found = set()
    for name, recipe in RECIPES.items():
        try:
            gpus.refuse(recipe, gpu)
        except LimitError:
            found.add(name)
    assert found == refused


def test_a_refusal_says_what_was_found_and_what_runs_there() -> None:
    with pytest.raises(LimitError) as caught:
        gpus.refuse(RECIPES["fp8"], "A100")
    assert caught.value.what == "A100 can't run fp8: it needs Ada (SM 89) or later"
    assert caught.value.found == "SM 80"
    assert caught.value.do == "choose int8_sq or int4_awq or int8_wo or int4_wo"


def test_a_cache_that_the_gpu_has_not_is_refused() -> None:
    gpus.refuse(RECIPES["int4_awq"], "A100", kv_cache="int8")
    gpus.refuse(RECIPES["fp8"], "L4", kv_cache="fp8")
    with pytest.raises(LimitError, match="FP8 cache needs Ada"):
        gpus.refuse(RECIPES["int4_awq"], "A100", kv_cache="fp8")
    with pytest.raises(LimitError, match=r"INT8 cache.*--kv-cache"):
        gpus.refuse(RECIPES["fp8"], "B200", kv_cache="int8")


def test_groups_of_64_are_refused_where_the_kernel_takes_128() -> None:
    gpus.refuse(RECIPES["int4_awq"], "H100", group_size=64)
    gpus.refuse(RECIPES["w4a8_awq"], "H100", group_size=128)
    with pytest.raises(LimitError, match="groups of 128, not 64"):
        gpus.refuse(RECIPES["w4a8_awq"], "H100", group_size=64)


def test_every_recipes_first_generation_has_a_name() -> None:
    assert {recipe.min_sm for recipe in RECIPES.values()} <= set(gpus.GENERATIONS)
