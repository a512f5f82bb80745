"""What a quantization cost, put together: the comparison, the weights' errors, sizes, versions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from builder.dtypes import NUMPY
from builder.errors import MissingToolError
from builder.progress import Progress
from builder.source import Source
from quantize.calibration import Say
from quantize.evaluate import Evaluation
from quantize.recipes import RECIPES
from quantize.report import JSON, NOT_RUN, Limits, Model, Report, as_json
from quantize.report_folder import write
from quantize.weight_error import WeightError, weight_errors

Phase = Callable[[str], AbstractContextManager[Progress]]
"""Shows a phase by its name while it lasts."""

TOOLS = ("trtbuild", "nvidia-modelopt", "torch", "transformers", "openvino")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The comparison of source and quantized model; else why there is none."""

    found: Evaluation | None = None
    missing: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """All of a report but the weights in the folder that it is written into.

    `settings` are those of the calibration, `out` is where the folder will be.
    """

    source: Source
    name: str
    out: Path
    recipe: str
    evaluated: Evaluated
    settings: Mapping[str, Any]
    max_ppl_increase: float | None
    measures: bool = True
    """Whether the weights' errors are wanted."""

    def write(self, folder: Path, *, phase: Phase, say: Say) -> None:
        """Write report.json, report.html and plots of a checkpoint or a Hugging Face folder.

        Without matplotlib there is only report.json, which is said.
        """
        errors, missing = self._weight_errors(folder, phase)
        told = Report(
            source=self._model(self.name, "source_kind", self.source.path, _source_bytes(self)),
            quantized=self._model(
                self.recipe,
                "quantized_kind",
                self.out,
                None if "size" in missing else _bytes(folder),
            ),
            evaluation=self.evaluated.found,
            weight_errors=errors,
            recipe=self.recipe,
            settings=self.settings,
            versions=versions(TOOLS),
            limits=Limits(max_ppl_increase=self.max_ppl_increase),
            not_measured=missing,
        )
        try:
            write(told, folder)
        except MissingToolError as error:
            say(f"no report.html: {error}")
            text = json.dumps(as_json(told), indent=2, allow_nan=False) + "\n"
            (folder / JSON).write_text(text)

    def _weight_errors(
        self, folder: Path, phase: Phase
    ) -> tuple[tuple[WeightError, ...] | None, dict[str, str]]:
        """The errors, and what wasn't measured."""
        missing = {} if self.evaluated.missing is None else {"evaluation": self.evaluated.missing}
        if not RECIPES[self.recipe].calibrates:
            missing["size"] = "the weights are plain until TensorRT-LLM builds the engine"
        if not (folder / "rank0.safetensors").is_file():
            why = "the weights' errors are measured of a checkpoint, which has them too"
            return None, {**missing, "weight_errors": why}
        if not self.measures:
            return None, {**missing, "weight_errors": "--no-eval"}
        with phase("measure the weights") as progress:
            return weight_errors(self.source, folder, progress), missing

    def _model(self, name: str, kind: str, path: Path, size_bytes: int | None) -> Model:
        found = self.evaluated.found
        return Model(
            name=name,
            kind=getattr(found, kind) if found else NOT_RUN,
            path=str(path),
            size_bytes=size_bytes,
        )


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _bytes(folder: Path) -> int:
    """The weights' files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _source_bytes(cost: Cost) -> int:
    """The source's weights in the dtype that it was published in; of a GGUF file, the file."""
    if cost.source.path.is_file():
        return cost.source.path.stat().st_size
    parameters = sum(math.prod(tensor.shape) for tensor in cost.source.tensors.values())
    return int(parameters * NUMPY[cost.source.config.dtype].itemsize)
