"""A folder that keeps what a quantization has found, so that a run that was killed goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder.artifact import writing
from builder.calibration import Calibration
from builder.errors import OutputError
from quantize.evaluate import Distribution, Evaluation, Stretch

SETTINGS = "settings.json"
CALIBRATION = "calibration.safetensors"
EVALUATION = "evaluation.json"


class State:
    """What is kept at `path` of the quantization that `settings` describe.

    The calibration, once it is found; until then what ModelOpt keeps below `partial`. Raises
    OutputError for a folder that keeps another quantization's, or something else.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.partial = path / "partial"
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            kept = path / SETTINGS
            if kept.is_file() and kept.read_text() != text:
                raise OutputError(
                    f"{path} keeps the state of another quantization",
                    found=_difference(kept.read_text(), text),
                    do="repeat its options, choose another --save-state, or remove the folder",
                )
            if not kept.is_file():
                if strange := _visible(path):
                    raise OutputError(
                        f"{path} is not a folder of --save-state",
                        found=strange[0],
                        do="choose a new or an empty one",
                    )
                _write(kept, text)

    def calibration(self) -> Calibration | None:
        """The calibration that was found, if it was."""
        path = self.path / CALIBRATION
        return Calibration.load(path) if path.is_file() else None

    def keep_calibration(self, found: Calibration) -> None:
        """Keep it; what ModelOpt kept on the way there isn't needed any more."""
        with writing(self.path):
            found.save(self.path / CALIBRATION)
            shutil.rmtree(self.partial, ignore_errors=True)

    def evaluation(self, settings: Mapping[str, Any]) -> Evaluation | None:
        """The comparison that was made with the same settings, if it was."""
        path = self.path / EVALUATION
        if not path.is_file():
            return None
        kept = json.loads(path.read_text())
        if kept["settings"] != settings:
            return None
        fields = kept["evaluation"]
        kl = None if fields["kl"] is None else Distribution(**_tuples(fields["kl"]))
        profile = tuple(Stretch(**stretch) for stretch in fields["profile"])
        return Evaluation(**{**fields, "kl": kl, "profile": profile})

    def keep_evaluation(self, found: Evaluation, settings: Mapping[str, Any]) -> None:
        """Keep a comparison."""
        fields = {"settings": settings, "evaluation": asdict(found)}
        with writing(self.path):
            _write(self.path / EVALUATION, json.dumps(fields))


def _visible(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir() if not each.name.startswith("."))


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _difference(kept: str, wanted: str) -> str:
    """The first line in which two settings differ, as it is kept."""
    wanted_lines = set(wanted.splitlines())
    lines = [line.strip().rstrip(",") for line in kept.splitlines() if line not in wanted_lines]
    return lines[0] if lines else "other settings"
