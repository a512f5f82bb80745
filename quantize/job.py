"""The whole job: refuse early, calibrate, write what is asked for, say what it cost.

A checkpoint, a Hugging Face folder, or both come from one calibration. What an earlier run has
finished is recognised and kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from builder import artifact, manifest
from builder.convert import (
    ConvertOptions,
    Quantizing,
    checkpoint_dtype,
    convert,
    model_name,
)
from builder.encoder import refuse_encoder
from builder.errors import ArtifactError, LimitError, OutputError
from builder.manifest import Manifest
from builder.source import Source, open_source
from builder.source.huggingface import EXPORTED
from quantize import needs
from quantize.calibration import Say
from quantize.cost import Cost, Evaluated, Phase, versions
from quantize.model import Memory
from quantize.options import QuantizeOptions
from quantize.report import JSON, percent
from quantize.session import Session
from quantize.state import State
from quantize.weight_only import evaluate as evaluate_weight_only


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What a job has made: the artifacts' manifests, and the content of its report.json."""

    checkpoint: Manifest | None
    huggingface: Manifest | None
    report: Mapping[str, Any]


def quantize(
    model: Path,
    *,
    out: Path | None,
    hf: Path | None = None,
    options: QuantizeOptions,
    conversion: ConvertOptions | None = None,
    phase: Phase,
    say: Say,
    free: Memory | None = None,
) -> Quantized:
    """Quantize `model` into a checkpoint at `out`, a Hugging Face folder at `hf`, or both.

    `conversion` is the checkpoint's layout, dtype and name. `free` is the memory that there is,
    looked up if None. Raises what the steps raise, before anything is loaded where that can be
    known. Whether the quality is good enough is `require_quality`'s to say.
    """
    needs.refuse_gpu(options)
    if hf is not None:
        needs.refuse_huggingface(options)
    conversion = conversion or ConvertOptions()
    if not options.chosen.calibrates:
        conversion = ConvertOptions(**{**asdict(conversion), "recipe": options.recipe})
    job = _Job(model, conversion, options, writes=(out, hf), phase=phase, say=say, free=free)
    folder = None if hf is None else job.write_huggingface(hf)
    checkpoint = None if out is None else job.write_checkpoint(out)
    return Quantized(checkpoint=checkpoint, huggingface=folder, report=_told(out or hf))


def require_quality(told: Mapping[str, Any], max_ppl_increase: float | None) -> None:
    """Raise LimitError if a report's perplexity grew by more, 0.02 being 2 %, or isn't known."""
    if max_ppl_increase is None:
        return
    increase = told["perplexity"]["increase"]
    if increase is None:
        why = told["not_measured"].get("evaluation", "nothing")
        raise LimitError("the perplexity's increase was not measured", found=why)
    if increase > max_ppl_increase:
        raise LimitError(
            f"the perplexity grew by more than {percent(max_ppl_increase)}",
            found=percent(increase),
            do="take a finer recipe (trtbuild recipes), or more and likelier text (--calib)",
        )


class _Job:
    """The steps, and what they share."""

    def __init__(
        self,
        model: Path,
        conversion: ConvertOptions,
        options: QuantizeOptions,
        *,
        writes: tuple[Path | None, Path | None],
        phase: Phase,
        say: Say,
        free: Memory | None,
    ) -> None:
        self._path, self._options, self._conversion = model, options, conversion
        self._phase, self._say = phase, say
        self._source = open_source(model)
        refuse_encoder(self._source.config.architecture, "quantization")
        self._name = conversion.name or model_name(model)
        out, hf = writes
        _refuse_places(out, hf)
        size = needs.group_size(self._source, options, conversion if out else ConvertOptions())
        self._dtype = checkpoint_dtype(self._source, conversion)
        self._calibrated_with = options.calibrated_with(size)
        self._session: Session | None = None
        if options.chosen.calibrates:
            self._session = Session(
                self._source,
                options,
                group_size=size,
                dtype=self._dtype,
                exports=hf is not None,
                state=self._state(),
                phase=phase,
                say=say,
                free=free,
            )

    @property
    def _settings(self) -> dict[str, Any]:
        return {**self._calibrated_with, "evaluation": self._options.evaluated_with()}

    @property
    def _made_by(self) -> dict[str, str]:
        """The versions of what decides the numbers: none of a recipe without a calibration."""
        names = ("nvidia-modelopt", "torch", "transformers") if self._session else ()
        return versions(names)

    def _state(self) -> State | None:
        if self._options.state is None:
            return None
        settings = {
            **self._calibrated_with,
            "dtype": self._dtype,
            "source": manifest.identity(self._path),
        }
        return State(self._options.state, settings)

    def write_huggingface(self, hf: Path) -> Manifest:
        """ModelOpt's Hugging Face folder, unless it is there."""
        wanted = Manifest(
            kind=EXPORTED,
            made_by={**versions(("trtbuild",)), **self._made_by},
            source=manifest.identity(self._path),
            options={"dtype": self._dtype, "quantize": self._settings},
            about={
                "name": self._name,
                "architecture": self._source.config.architecture,
                "dtype": self._dtype,
            },
        )
        if found := artifact.finished(hf, wanted):
            return found
        assert self._session, "refuse_huggingface lets no recipe through that isn't calibrated"  # noqa: S101
        self._session.calibration()
        with artifact.stage(hf, wanted) as staging:
            self._session.export(staging.path)
            for name, read in self._source.files.items():
                (staging.path / name).write_bytes(read())
            self._report(hf, staging.path)
        return manifest.read(hf, EXPORTED)

    def write_checkpoint(self, out: Path) -> Manifest:
        """The TensorRT-LLM checkpoint, unless it is there."""
        with ExitStack() as shown:
            bar: list[Any] = []

            def progress(done: int, total: int) -> None:
                """The phase begins when there is something to show."""
                if not bar:
                    bar.append(shown.enter_context(self._phase("write")))
                bar[0](done, total)

            def finish(folder: Path) -> None:
                shown.close()
                self._report(out, folder)

            return convert(
                self._path,
                out,
                options=self._conversion,
                quantizing=Quantizing(
                    settings=self._settings,
                    made_by=self._made_by,
                    calibrate=self._calibrate if self._session else None,
                    finish=finish,
                ),
                progress=progress,
            )

    def _calibrate(self, _: Source) -> Any:
        """What the checkpoint is written from; the model isn't needed any more."""
        assert self._session, "only a session is calibrated"  # noqa: S101
        found = self._session.calibration()
        self._session.release()
        return found

    def _report(self, out: Path, folder: Path) -> None:
        """Write the report on the weights in `folder`, which will be at `out`."""
        if self._session:
            evaluated = self._session.evaluated
        elif self._options.evaluate:
            evaluated = evaluate_weight_only(
                self._source, folder, self._options, phase=self._phase, say=self._say
            )
        else:
            evaluated = Evaluated(missing="--no-eval")
        cost = Cost(
            source=self._source,
            name=self._name,
            out=out,
            recipe=self._options.recipe,
            evaluated=evaluated,
            settings=self._settings,
            max_ppl_increase=self._options.max_ppl_increase,
            measures=self._options.evaluate,
        )
        cost.write(folder, phase=self._phase, say=self._say)


def _refuse_places(out: Path | None, hf: Path | None) -> None:
    """Raise OutputError for folders that can't be written, before the hours of a calibration."""
    wanted = ((out, "checkpoint"), (hf, EXPORTED))
    places = [(place.resolve(), kind) for place, kind in wanted if place is not None]
    if any(one.is_relative_to(other) for (one, _), (other, _) in permutations(places, 2)):
        raise OutputError(
            "the checkpoint and the Hugging Face folder need places of their own",
            found=f"-o {out} --hf {hf}",
        )
    for place, kind in places:
        artifact.refuse_foreign(place, kind)


def _told(artifact_folder: Path | None) -> Mapping[str, Any]:
    """The content of an artifact's report."""
    path = Path(str(artifact_folder)) / JSON
    try:
        told: Mapping[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read", found=str(error)) from error
    return told
