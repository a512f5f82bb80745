"""Promise: `trtbuild quantize` and `up --recipe` take what they say, and fail when quality does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from builder.errors import LimitError, TrtbuildError
from trtbuild.commands.quantize import quantize
from trtbuild.commands.up import up


def invoke(command: Any, *arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def few(tmp_path: Path) -> list[str]:
    """Little text: 4 samples of 32 tokens."""
    text = tmp_path / "text.txt"
    text.write_text(Path(__file__).read_text())
    samples = ["--samples", "4", "--max-length", "32", "--batch-size", "2", "--device", "cpu"]
    return ["--calib", str(text), "--eval", str(text), *samples]


@pytest.mark.parametrize(
    "arguments",
    [
        ("model", "--recipe", "fp8"),
        ("model", "-o", "out"),
        ("model", "-o", "out", "--recipe", "int3"),
        ("model", "-o", "out", "--recipe", "fp8", "--kv-cache", "fp4"),
        ("model", "-o", "out", "--recipe", "fp8", "--samples", "0"),
        ("model", "-o", "out", "--recipe", "fp8", "--device", "tpu"),
    ],
)
def test_misuse_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert "Usage:" in invoke(quantize, *arguments, code=2).output


def test_a_quantized_cache_of_up_needs_a_recipe() -> None:
    assert "--recipe" in invoke(up, "model", "--kv-cache", "fp8", code=2).output


def test_a_limit_that_is_no_number_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    arguments = (tiny_models["llama"], "-o", tmp_path / "out", "--recipe", "fp8")
    result = invoke(quantize, *arguments, "--max-ppl-increase", "little", code=1)
    assert isinstance(result.exception, LimitError)


@pytest.mark.reference
def test_the_result_is_a_line_each_and_the_cost(
    tiny_models: dict[str, Path], tmp_path: Path, few: list[str]
) -> None:
    out, hf = tmp_path / "out", tmp_path / "hf"
    arguments = (tiny_models["llama"], "-o", out, "--hf", hf, "--recipe", "fp8", *few)
    lines = invoke(quantize, *arguments).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["checkpoint", "hf_checkpoint", "quality"]
    assert "perplexity" in lines[2]
    told = json.loads(invoke(quantize, *arguments, "--json").stdout)
    assert [each["kind"] for each in told["artifacts"]] == ["checkpoint", "hf_checkpoint"]
    assert told["report"]["recipe"] == "fp8"


@pytest.mark.reference
def test_quality_that_is_too_low_fails_after_everything_is_written_and_again(
    tiny_models: dict[str, Path], tmp_path: Path, few: list[str]
) -> None:
    """A random model isn't hurt, so the stored report says here that it was."""
    out = tmp_path / "out"
    arguments = (tiny_models["llama"], "-o", out, "--recipe", "fp8", *few)
    invoke(quantize, *arguments, "--max-ppl-increase", "50%")
    told = json.loads((out / "report.json").read_text())
    told["perplexity"]["increase"] = 0.2
    size = (out / "report.json").stat().st_size
    (out / "report.json").write_text(json.dumps(told).ljust(size))
    result = invoke(quantize, *arguments, "--max-ppl-increase", "2%", code=1)
    assert isinstance(result.exception, TrtbuildError)
    assert "perplexity grew by more than 2.00 %; found 20.00 %" in str(result.exception)
    assert "checkpoint: " in result.stdout
