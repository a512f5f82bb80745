"""Promise: `trtbuild up --recipe` answers sensibly from quantized weights, under a real Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stack import NAME, Stack, running

pytestmark = pytest.mark.triton

QUESTIONS = {
    "What is the capital of France?": "Paris",
    "What is the capital of Japan?": "Tokyo",
    "What is the chemical formula of water?": "H2O",
    "What language is spoken in Brazil?": "Portuguese",
}
"""Question → a word that the unquantized model's answer has too."""


def answers(stack: Stack) -> dict[str, str]:
    found = {}
    for question in QUESTIONS:
        messages: Any = [{"role": "user", "content": question}]
        answer = stack.client.chat.completions.create(
            model=NAME, messages=messages, max_tokens=48, temperature=0
        )
        found[question] = answer.choices[0].message.content or ""
    return found


def made(work: Path) -> list[int]:
    """When each artifact was written."""
    return [path.stat().st_mtime_ns for path in sorted((work / NAME).glob("*/trtbuild.json"))]


def test_weights_of_8_bits_answer_and_are_made_once(smollm2_gguf: Path, tmp_path: Path) -> None:
    with running(smollm2_gguf, tmp_path, "--recipe", "int8_wo") as stack:
        found, before = answers(stack), made(tmp_path)
        weights = (stack.engine / "openvino_model.bin").stat().st_size
    assert all(word in found[question] for question, word in QUESTIONS.items()), found
    assert weights < 0.7 * 2 * 135e6
    with running(smollm2_gguf, tmp_path, "--recipe", "int8_wo"):
        assert made(tmp_path) == before


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.reference
@pytest.mark.parametrize("recipe", ["fp8", "int8_sq", "int4_awq"])
def test_a_calibrated_model_answers(smollm2_gguf: Path, tmp_path: Path, recipe: str) -> None:
    # SmoothQuant needs more text than the others.
    options = ("--recipe", recipe, "--samples", "64" if recipe == "int8_sq" else "8")
    with running(smollm2_gguf, tmp_path, *options, ready_s=3000) as stack:
        found = answers(stack)
    # In 4 bits so small a model forgets capitals; garbage would know none of it.
    assert sum(word in found[question] for question, word in QUESTIONS.items()) >= 2, found
