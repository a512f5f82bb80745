"""Promise: the acceptance tells the truth: what passed, what failed, what was never run.

Its steps on a GPU can't be tried here; the same script on the CPU target can, and is.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import gpu_acceptance  # noqa: E402
from acceptance_answers import Answer, compare  # noqa: E402
from acceptance_report import Report, Variant  # noqa: E402
from gpu_acceptance import LEAST, RECIPES, read_arguments, recipes_for, trtbuild  # noqa: E402

from quantize.recipes import RECIPES as KNOWN  # noqa: E402


def acceptance(
    model: Path, work: Path, *options: str, timeout_s: float = 120
) -> tuple[int, dict, str]:
    """Run the script: exit code, report.json, and what it printed."""
    command = [sys.executable, str(EXAMPLES / "gpu_acceptance.py"), str(model), "--work", str(work)]
    result = subprocess.run(
        [*command, *options], stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=False
    )
    return result.returncode, json.loads((work / "report.json").read_text()), result.stdout


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.reference
@pytest.mark.timeout(3600)
def test_the_rehearsal_passes_on_a_cpu(smollm2_gguf: Path, tmp_path: Path) -> None:
    options = ("--target", "openvino", "--recipes", "fp8,int4_awq", "--samples", "16")
    code, report, said = acceptance(smollm2_gguf, tmp_path, *options, timeout_s=3500)
    assert code == 0, said
    assert report["passed"] is True
    assert [variant["name"] for variant in report["variants"]] == ["plain", "fp8", "int4_awq"]
    for variant in report["variants"]:
        steps = [step["name"] for step in variant["steps"]]
        made = "convert" if variant["name"] == "plain" else "quantize"
        assert steps == [
            *(made, "build", "check", "repo", "serve", "answer", "measure", "stop", "tokens")
        ]
        assert variant["figures"]["tokens"] > 500
        assert variant["figures"]["tokens_per_s"] > 0
    assert "# Acceptance of trtbuild: passed" in said


def test_a_step_that_fails_is_said_and_the_rest_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    options = ("--target", "openvino", "--recipes", "int8_wo")
    code, report, said = acceptance(tmp_path / "empty", tmp_path / "work", *options)
    assert code == 1
    assert report["passed"] is False
    for variant, made in zip(report["variants"], ("convert", "quantize"), strict=True):
        first, *rest = variant["steps"]
        assert (first["name"], first["outcome"]) == (made, "failed")
        assert "config.json" in first["detail"]
        assert {step["outcome"] for step in rest} == {"not run"}
    assert "NOT passed" in said
    assert f"trtbuild convert {tmp_path / 'empty'}" in said


def test_what_must_be_stopped_is_stopped_after_a_failure_too() -> None:
    variant, stopped = Variant("x"), []

    def fail() -> str:
        raise OSError("no answer")

    variant.step("ask", fail)
    variant.step("measure", lambda: "fast")
    variant.step("stop", lambda: stopped.append(1) or "in order", always=lambda: True)
    assert [step.outcome for step in variant.steps] == ["failed", "not run", "passed"]
    assert variant.steps[0].detail == "OSError: no answer"
    assert stopped
    assert not variant.passed


def test_without_its_tokens_compared_nothing_has_passed() -> None:
    report = Report(model="m", target="t", gpu=None, machine=None)
    assert not report.passed
    report.variant("plain").step("stop", lambda: "in order")
    assert not report.passed
    report.variant("plain").step("tokens", lambda: "all")
    assert report.passed
    report.variant("fp8").step("build", lambda: "done")
    assert not report.passed


def test_make_runs_it_in_the_gpu_image_on_all_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = subprocess.run(
        ["make", "-n", "gpu-acceptance", f"MODEL={tmp_path}", "OPTIONS=--tp 2", "TRITON_IMAGE=a:1"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = made.stdout.replace("\\\n", " ").splitlines()
    [build] = [line for line in lines if line.startswith("docker build")]
    [run] = [shlex.split(line) for line in lines if line.startswith("docker run")]
    assert "--file docker/Dockerfile --target quantize --tag trtbuild:quantize" in build
    assert "--build-arg TRITON_IMAGE=a:1 ." in build
    for wanted in ("--gpus all", "--ulimit memlock=-1", "--ulimit stack=67108864"):
        assert wanted in " ".join(run)
    mounts = dict(word.split(":")[:2] for word in run if word.startswith("/") and ":" in word)
    words = run[run.index("trtbuild:quantize") + 1 :]
    assert words[:2] == ["python3", f"{mounts[str(EXAMPLES)]}/gpu_acceptance.py"]
    assert words[2] == mounts[str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [words[1], str(tmp_path), *words[3:]])
    chosen = read_arguments()
    assert (chosen.target, chosen.tp) == ("tensorrt-llm", 2)
    assert mounts[str(EXAMPLES.parent / "work")] in map(str, chosen.work.parents)


class Counting:
    """Stands for transformers: ids are a text's numbers, and its choice is always one more."""

    def ids(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def choices(self, ids: list[int]) -> tuple[list[int], list[float]]:
        choice = [token + 1 for token in ids[:-1]]
        return choice, [abs(a - b) / 20 for a, b in zip(choice, ids[1:], strict=True)]


def test_tokens_are_counted_after_the_prompt_and_near_ties_apart() -> None:
    # after 1 2: 3 is the choice; 5 is one off its 4, a logit 0.05 below; 9 is three off its 6; the
    # last of an answer is not judged
    answers = [Answer("1 2", " 3 5 9 0"), Answer("7", " 8 0")]
    found = compare(answers, Counting())  # type: ignore[arg-type]
    assert found == {"tokens": 4, "same": 2, "near": 1}


def test_recipes_are_recipes_of_ours() -> None:
    assert {name for names in RECIPES.values() for name in names} <= set(KNOWN)
    assert set(LEAST) - {"plain"} <= set(KNOWN)


def test_a_commands_failure_is_its_last_words(tmp_path: Path) -> None:
    variant = Variant("x")
    trtbuild(variant, "inspect", tmp_path / "nothing")
    [step] = variant.steps
    assert step.outcome == "failed"
    assert "exit code 1: trtbuild: " in step.detail
    assert step.command == f"trtbuild inspect {tmp_path / 'nothing'}"


@pytest.mark.parametrize(("sm", "runs"), [(89, ["fp8", "int4_awq"]), (80, ["int4_awq"])])
def test_recipes_are_chosen_by_compute_capability(sm: int, runs: list[str]) -> None:
    assert list(recipes_for("tensorrt-llm", sm)) == runs


@pytest.mark.parametrize("sm", [0, 1])
def test_on_a_gpu_that_nobody_knows_all_recipes_are_tried(sm: int) -> None:
    assert tuple(recipes_for("tensorrt-llm", sm)) == RECIPES["tensorrt-llm"]


def test_quantize_runs_in_the_python_that_has_modelopt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That Python is a stand-in, which says what it was told."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "told $*"\n')
    python.chmod(0o755)
    monkeypatch.setattr(gpu_acceptance, "QUANTIZE", python)
    variant = Variant("fp8")
    trtbuild(variant, "quantize", "m", "-o", "c")
    trtbuild(variant, "inspect", tmp_path)
    quantized, inspected = variant.steps
    assert quantized.detail == "told -m trtbuild quantize m -o c"
    assert quantized.command == f"{python} -m trtbuild quantize m -o c"
    assert "not a trtbuild artifact" in inspected.detail
