"""Opens a language model, a Hugging Face folder or a GGUF file, without reading its weights."""

from __future__ import annotations

from pathlib import Path

from builder.errors import ModelError
from builder.source import gguf, huggingface
from builder.source.config import ModelConfig
from builder.source.model import Source, Tensor

__all__ = ["ModelConfig", "Source", "Tensor", "open_source"]


def open_source(path: Path) -> Source:
    """The model at `path`: a folder with config.json and safetensors, or a `.gguf` file.

    Raises ModelError, CorruptFileError or UnknownFamilyError, naming the file and the field.
    """
    if path.is_dir():
        return huggingface.open_folder(path)
    if not path.exists():
        raise ModelError(f"{path} doesn't exist", do="give a Hugging Face folder or a .gguf file")
    if path.suffix == ".gguf" and path.is_file():
        return gguf.open_file(path)
    huggingface.refuse_pickle(path, [path])
    raise ModelError(f"{path} is not a model", do="give a Hugging Face folder or a .gguf file")
