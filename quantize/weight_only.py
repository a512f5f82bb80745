"""What a recipe costs that needs no calibration: measured on OpenVINO, without torch."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

from builder.errors import TrtbuildError
from builder.source import Source
from quantize.calibration import Say
from quantize.cost import Evaluated, Phase
from quantize.evaluate import compare
from quantize.model import free_memory
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

    needed_bytes = 4 * sum(math.prod(tensor.shape) for tensor in source.tensors.values())
    free_bytes = free_memory("cpu").cpu_bytes
    if needed_bytes > free_bytes:
        figures = f"{needed_bytes / 1e9:,.0f} GB are needed, {free_bytes / 1e9:,.0f} GB free"
        return Evaluated(missing=f"the model doesn't fit the memory in float32: {figures}")
    try:
        held_out = Samples(source, options, say).held_out()
        with phase("evaluate the source") as progress:
            plain = ConvertedScorer(source.path, max_length=EVALUATED_LENGTH)
            recorded = record(plain, held_out, progress=progress)
        del plain
        with phase("evaluate the quantized") as progress:
            scorer = CheckpointScorer(checkpoint, name=options.recipe, max_length=EVALUATED_LENGTH)
            return Evaluated(found=compare(recorded, scorer, progress))
    except TrtbuildError as error:
        return Evaluated(missing=str(error))
