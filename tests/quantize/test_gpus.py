"""Promise: a recipe that the target GPU can't run is refused by name, with what runs there."""

from __future__ import annotations

import pytest

from builder.errors import LimitError
from quantize import gpus
from quantize.recipes import RECIPES

INTEGER = ("int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo")


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
    assert caught.value.what.startswith("A100 can't run fp8: ")
    assert "FP8, which needs SM 89, on SM 80" in caught.value.what
    assert caught.value.do == "choose int8_sq or int4_awq or int8_wo or int4_wo"


def test_a_cache_that_the_gpu_has_not_is_refused() -> None:
    gpus.refuse(RECIPES["int4_awq"], "A100", kv_cache="int8")
    gpus.refuse(RECIPES["fp8"], "L4", kv_cache="fp8")
    with pytest.raises(LimitError, match="FP8 KV cache needs Ada"):
        gpus.refuse(RECIPES["int4_awq"], "A100", kv_cache="fp8")
    with pytest.raises(LimitError, match=r"INT8 KV cache.*--kv-cache"):
        gpus.refuse(RECIPES["fp8"], "B200", kv_cache="int8")


def test_groups_of_64_are_refused_where_the_kernel_takes_128() -> None:
    gpus.refuse(RECIPES["int4_awq"], "H100", group_size=64)
    gpus.refuse(RECIPES["w4a8_awq"], "H100", group_size=128)
    with pytest.raises(LimitError, match="groups of 64, not 128"):
        gpus.refuse(RECIPES["w4a8_awq"], "H100", group_size=64)


def test_every_recipe_begins_with_a_generation() -> None:
    """NVIDIA's hardware matrix: FP8 from Ada, FP4 from Blackwell, the rest from Ampere."""
    later = {"fp8": 89, "w4a8_awq": 89, "auto": 89, "nvfp4": 100}
    found = {name: gpus.least_sm(recipe) for name, recipe in RECIPES.items()}
    assert found == {name: later.get(name, 80) for name in RECIPES}
