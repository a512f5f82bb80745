"""For the acceptance: what each step did, as Markdown and as JSON."""

from __future__ import annotations

import json
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
PACKAGES = (
    *("trtbuild", "tensorrt_llm", "tensorrt", "torch", "transformers", "nvidia-modelopt"),
    *("nvidia-pytriton", "openvino", "tokenizers", "numpy"),
)


@dataclass
class Step:
    """One step: its command, its time, what came of it."""

    name: str
    outcome: str
    seconds: float
    detail: str
    command: str | None = None


@dataclass
class Variant:
    """A model as it is, or by one recipe."""

    name: str
    steps: list[Step] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def step(
        self,
        name: str,
        action: Callable[[], str],
        *,
        command: Sequence[str] | None = None,
        always: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run a step, unless one before it failed; `always` says when that is no reason."""
        shown = shlex.join(command) if command else None
        if not self.passed and not always():
            self.steps.append(Step(name, NOT_RUN, 0.0, "a step before it failed", shown))
            return
        began = time.monotonic()
        try:
            outcome, detail = PASSED, action()
        except Exception as error:  # noqa: BLE001 - whatever it is, the report is to say it
            outcome, detail = FAILED, f"{type(error).__name__}: {error}"
        self.steps.append(Step(name, outcome, time.monotonic() - began, detail, shown))

    @property
    def passed(self) -> bool:
        """Whether every step so far did."""
        return all(step.outcome == PASSED for step in self.steps)


@dataclass
class Report:
    """All of it."""

    model: str
    target: str
    gpu: str | None
    machine: Any
    variants: list[Variant] = field(default_factory=list)

    def variant(self, name: str) -> Variant:
        """The variant of this name, new or known."""
        found = next((each for each in self.variants if each.name == name), None)
        if found is None:
            found = Variant(name)
            self.variants.append(found)
        return found

    @property
    def passed(self) -> bool:
        """Whether every step of every variant did, tokens included."""
        return bool(self.variants) and all(
            each.passed and each.steps[-1].name == "tokens" for each in self.variants
        )

    def write(self, folder: Path) -> str:
        """Write report.json and report.md; the latter's text."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"passed": self.passed, "versions": versions(), **asdict(self)}
        (folder / "report.json").write_text(json.dumps(about, indent=2) + "\n")
        text = self._markdown()
        (folder / "report.md").write_text(text)
        return text

    def _markdown(self) -> str:
        lines = [
            f"# Acceptance of trtbuild: {'passed' if self.passed else 'NOT passed'}",
            "",
            f"- model: {self.model}",
            f"- target: {self.target}",
            f"- GPU: {self.gpu or 'none'}",
            f"- {', '.join(f'{name} {found}' for name, found in versions().items())}",
            f"- {platform.platform()}",
        ]
        for variant in self.variants:
            lines += [
                "",
                f"## {variant.name}",
                "",
                "| step | outcome | time | |",
                "|---|---|---|---|",
            ]
            for step in variant.steps:
                detail = " ".join(step.detail.replace("|", "\\|").split())
                lines.append(f"| {step.name} | {step.outcome} | {step.seconds:.1f} s | {detail} |")
            commands = [step.command for step in variant.steps if step.command]
            lines += ["", "```", *commands, "```"]
        return "\n".join(lines) + "\n"


def versions() -> dict[str, str]:
    """Python's and those of the packages that are here."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
