"""One calibration of one model: what is loaded, evaluated, calibrated and kept, in which order.

ModelOpt quantizes a model in place, so the source is evaluated before, and the two never take
memory at once. Everything is done once, when it is first asked for.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from builder.calibration import Calibration
from builder.convert import model_name
from builder.errors import LimitError
from builder.source import Source
from builder.source.calibrated import joined
from quantize import modelopt
from quantize.calibration import Say
from quantize.cost import Evaluated, Phase
from quantize.evaluate import compare
from quantize.model import (
    CALIBRATING,
    EXPORTING,
    SEARCHING,
    LoadPlan,
    Memory,
    free_memory,
    load,
    plan_load,
)
from quantize.modelopt.imposition import impose
from quantize.options import QuantizeOptions
from quantize.recording import Recording, record
from quantize.samples import Samples
from quantize.scorers.torch_model import TorchScorer
from quantize.state import State
from quantize.unquantized import to_dtype


class Session:
    """A model that is to be calibrated. `release` frees it, and what is known stays known.

    `dtype` is the checkpoint's; `exports` is whether the Hugging Face form will be written, which
    takes more memory; `free` is the memory that there is, looked up if None.
    """

    def __init__(
        self,
        source: Source,
        options: QuantizeOptions,
        *,
        group_size: int,
        dtype: str,
        exports: bool,
        state: State | None,
        phase: Phase,
        say: Say,
        free: Memory | None = None,
    ) -> None:
        self._source, self._options = source, options
        self._group_size, self._dtype = group_size, dtype
        self._exports, self._state, self._free = exports, state, free
        self._phase, self._say = phase, say
        self._model: Any = None
        self._calibration: Calibration | None = None
        self.evaluated = Evaluated(missing=None if options.evaluate else "--no-eval")

    def calibration(self) -> Calibration:
        """What was found of the model: kept from an earlier run, or now. Raises as the steps do."""
        if self._calibration is None:
            found = self._state.calibration() if self._state else None
            if found and self._state:
                self._say(f"going on from the calibration in {self._state.path}")
                evaluation = self._state.evaluation(self._options.evaluated_with())
                self.evaluated = Evaluated(found=evaluation, missing=self.evaluated.missing)
            if found is None or self.evaluated == Evaluated():
                found = self._run(found)
            self._calibration = found
        return self._calibration

    def export(self, folder: Path) -> None:
        """Write the Hugging Face form into `folder`; the model is of no more use then."""
        found = self.calibration()
        if self._model is None:
            modelopt.require()
            self._model = load(
                self._source,
                self._plan(found),
                trust_remote_code=self._options.trust_remote_code,
            )
            impose(self._model, found)
        with self._phase("export"):
            modelopt.export(self._model, folder, self._dtype)
        self.release()
        to_dtype(folder, self._dtype)

    def release(self) -> None:
        """Free the model's memory."""
        if self._model is not None:
            self._model = None
            gc.collect()
            modelopt.empty_cache()

    def _run(self, found: Calibration | None) -> Calibration:
        """Calibrate, or take what was `found`, and evaluate if that is to be done."""
        modelopt.require()
        options, source = self._options, self._source
        plan = self._plan(found)
        self._say(str(plan))
        evaluates = self._evaluates(plan)
        samples = Samples(source, options, self._say)
        text = [] if found else samples.calibration()
        held_out = samples.held_out() if evaluates else []
        model = load(source, plan, trust_remote_code=options.trust_remote_code)
        recorded: Recording | None = None
        if held_out:
            with self._phase("evaluate the source") as progress:
                scorer = TorchScorer(model, name=model_name(source.path))
                recorded = record(scorer, held_out, progress=progress)
        if found is None:
            with self._phase("calibrate") as progress:
                found = modelopt.calibrate(
                    model,
                    self._choices(),
                    text,
                    state=self._state.partial if self._state else None,
                    progress=progress,
                )
            if self._state:
                self._state.keep_calibration(found)
        else:
            impose(model, found)
        modelopt.join(model, joined(source, found))
        if recorded is not None:
            with self._phase("evaluate the quantized") as progress:
                scorer = TorchScorer(model, name=options.recipe)
                evaluation = compare(recorded, scorer, progress)
            self.evaluated = Evaluated(found=evaluation)
            if self._state:
                self._state.keep_evaluation(evaluation, options.evaluated_with())
        self._model = model
        return found

    def _plan(self, found: Calibration | None) -> LoadPlan:
        """Where the model goes, which is to be as it was when it was calibrated.

        Raises LimitError where it is too large.
        """
        options = self._options
        overhead = SEARCHING if options.chosen.candidates else CALIBRATING
        return plan_load(
            self._source,
            dtype=found.dtype if found else self._dtype,
            batch_tokens=options.batch_size * options.max_length,
            overhead=max(overhead, EXPORTING) if self._exports else overhead,
            free=self._free or free_memory(options.device),
        )

    def _evaluates(self, plan: LoadPlan) -> bool:
        """Whether the models will be compared. Raises LimitError for a limit that can't be met."""
        if not self._options.evaluate:
            return False
        if modelopt.runs_on(plan.device, self._options.chosen):
            return True
        why = f"ModelOpt computes {self._options.recipe} models on CUDA only"
        self.evaluated = Evaluated(missing=why)
        if self._options.max_ppl_increase is not None:
            raise LimitError(
                "the perplexity can't be limited: it can't be measured here",
                found=why,
                do="leave --max-ppl-increase out",
            )
        return False

    def _choices(self) -> modelopt.Choices:
        options = self._options
        return modelopt.Choices(
            recipe=options.chosen,
            alpha=options.alpha,
            group_size=self._group_size or None,
            bits_per_weight=options.bits_per_weight,
            kv_cache=options.kv_cache,
            seed=options.seed,
        )
