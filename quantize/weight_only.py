"""What a recipe costs that needs no calibration: measured on OpenVINO, without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from builder.errors import TrtbuildError
from builder.source import Source
from quantize.calibration import Say
from quantize.cost import Evaluated, Phase
from quantize.evaluate import compare
from quantize.options import EVALUATED_LENGTH, QuantizeOptions
from quantize.recording import record
from quantize.samples import Samples


def evaluate(
    source: Source, checkpoint: Path, options: QuantizeOptions, *, phase: Phase, say: Say
) -> Evaluated:
    """Compare a model with the checkpoint that was made from it."""
    for package, extra in (("openvino", "cpu"), ("transformers", "quantize")):
        if find_spec(package) is None:
            why = f"{package} isn't installed: pip install 'trtbuild[{extra}]'"
            return Evaluated(missing=why)
    from quantize.scorers.openvino_checkpoint import CheckpointScorer, ConvertedScorer

    held_out = Samples(source, options, say).held_out()
    try:
        with phase("evaluate the source") as progress:
            plain = ConvertedScorer(source.path, max_length=EVALUATED_LENGTH)
            recorded = record(plain, held_out, progress=progress)
        del plain
        with phase("evaluate the quantized") as progress:
            scorer = CheckpointScorer(checkpoint, name=options.recipe, max_length=EVALUATED_LENGTH)
            return Evaluated(found=compare(recorded, scorer, progress))
    except TrtbuildError as error:
        return Evaluated(missing=str(error))
