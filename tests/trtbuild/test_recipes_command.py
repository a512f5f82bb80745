"""Promise: `trtbuild recipes` shows every recipe, and what a GPU runs of them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from builder.errors import LimitError
from quantize.recipes import RECIPES
from trtbuild.commands.recipes import recipes


def run(*arguments: str) -> str:
    result = CliRunner().invoke(recipes, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_every_recipe_is_shown_with_its_algorithm_size_and_use() -> None:
    lines = run().splitlines()
    for recipe in RECIPES.values():
        line = next(line for line in lines if line.startswith(f"{recipe.name} "))
        assert recipe.quant_algo in line
        assert recipe.on_cpu in line
        assert f"  {recipe.use}" in lines
    assert "50%" in next(line for line in lines if line.startswith("fp8 "))
    assert "26%" in next(line for line in lines if line.startswith("int4_awq "))


def test_a_line_fits_a_wide_terminal() -> None:
    assert max(map(len, run("--gpu", "RTX 5090").splitlines())) <= 110


def test_a_gpu_says_what_it_runs_and_why_not_the_rest() -> None:
    text = run("--gpu", "A100")
    assert text.startswith("A100 (SM 80) runs int8_sq, int4_awq, int8_wo, int4_wo\n")
    assert "(FP8, which needs SM 89, on SM 80)" in text
    assert "perhaps" in run("--gpu", "RTX 5090")


def test_generations_that_a_recipe_skips_are_shown() -> None:
    lines = {line.split()[0]: line for line in run().splitlines() if "SM " in line}
    assert "SM 80-99, 120+" in lines["int8_sq"]
    assert "SM 89+" in lines["fp8"]
    assert "SM 100+" in lines["nvfp4"]


def test_json_holds_the_same() -> None:
    rows = json.loads(run("--json", "--gpu", "B200"))
    assert [row["recipe"] for row in rows] == list(RECIPES)
    assert [row["recipe"] for row in rows if row["runs"]] == ["fp8", "nvfp4"]
    assert all(row["why_not"] for row in rows if not row["runs"])
    assert "runs" not in json.loads(run("--json"))[0]


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(LimitError, match="no such GPU"):
        run("--gpu", "MI300X")
