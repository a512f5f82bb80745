"""Models that can be asked what they expect next, and how to open one from what a user names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from builder import manifest
from builder.checkpoint import CONFIG
from builder.encoder import refuse_encoder
from builder.errors import ModelError
from builder.source import open_source
from builder.source.huggingface import read_json
from quantize.scorers.base import Logits, Predictions, Predictor, Scorer, Tokens

__all__ = ["Logits", "Predictions", "Predictor", "Scorer", "Tokens", "is_checkpoint", "open_scorer"]


def open_scorer(path: Path, *, max_length: int | None = None) -> Scorer:
    """The model at `path`: a Hugging Face folder, a .gguf file or a TensorRT-LLM checkpoint.

    A checkpoint runs on OpenVINO, in float32. So does a folder whose weights are quantized, and
    any where torch or transformers isn't installed: it is converted to a checkpoint in a temporary
    folder. All else runs on transformers, on CUDA where there is one. `max_length` is that of the
    longest sequence, in tokens, by default the model's. Raises ModelError and ArtifactError for
    what can't be run, MissingToolError where nothing is installed to run it.
    """
    if is_checkpoint(path):
        from quantize.scorers.openvino_checkpoint import CheckpointScorer

        return CheckpointScorer(path, max_length=max_length)
    source = open_source(path)
    refuse_encoder(source.config.architecture, "an evaluation")
    if source.quantization or not (find_spec("torch") and find_spec("transformers")):
        from quantize.scorers.openvino_checkpoint import ConvertedScorer

        return ConvertedScorer(path, max_length=max_length)
    from quantize.scorers.torch_model import load

    return load(source)


def is_checkpoint(path: Path) -> bool:
    """Whether it is a TensorRT-LLM checkpoint, not a model. Raises ModelError for neither."""
    if not path.is_dir():
        return False
    if (path / manifest.NAME).is_file():
        manifest.read(path, "checkpoint")
        return True
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"{path} is neither a model nor a checkpoint",
            found=f"no {CONFIG} in it",
            do="give a Hugging Face folder, a .gguf file, a checkpoint or an endpoint's URL",
        )
    return "architecture" in read_json(path / CONFIG)
