"""A GGUF file: its metadata as a ModelConfig, its tensors under their Hugging Face names.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, read by the `gguf` package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.errors import ModelError, UnknownFamilyError
from builder.source import gguf_tables as tables
from builder.source import gguf_tokenizer
from builder.source.config import ModelConfig
from builder.source.gguf_config import model_config
from builder.source.gguf_file import GgufFile, GgufTensor, read
from builder.source.model import Source


def open_file(path: Path) -> Source:
    """The model in a GGUF file. Raises ModelError, CorruptFileError and UnknownFamilyError."""
    file = read(path)
    if file.fields.get("split.count", 1) > 1:
        raise ModelError(
            f"{path} is one part of a model",
            found=f"{file.fields['split.count']} parts",
            do="join them with llama-gguf-split --merge",
        )
    name = file.fields.get("general.architecture")
    if name in tables.ENCODERS:
        raise UnknownFamilyError(
            f"{path} is an encoder, which isn't read from GGUF",
            found=repr(name),
            do="start from its Hugging Face folder: BERT and RoBERTa can be converted",
        )
    if name not in tables.ARCHITECTURES:
        raise UnknownFamilyError(
            f"the architecture of {path} is not known",
            found=repr(name),
            do=f"known are {', '.join(tables.ARCHITECTURES)}",
        )
    architecture = tables.ARCHITECTURES[name]
    config = model_config(file, architecture)
    tensors = _tensors(file, config, architecture)
    return Source(
        path=path, config=config, tensors=tensors, files=gguf_tokenizer.files(path, file.fields)
    )


def _tensors(
    file: GgufFile, config: ModelConfig, architecture: tables.Architecture
) -> dict[str, GgufTensor]:
    tensors = {
        huggingface_name(name): tensor
        for name, tensor in file.tensors.items()
        if name not in tables.UNUSED
    }
    if not architecture.permuted:
        return tensors
    return {name: _unpermuted(name, tensor, asdict(config)) for name, tensor in tensors.items()}


def huggingface_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor; an unknown one keeps its name, to be reported."""
    stem, _, ending = name.rpartition(".")
    layer = re.search(r"(?<=^blk\.)\d+(?=\.)", stem)
    if layer:
        stem = stem.replace(f"blk.{layer[0]}.", "blk.{i}.", 1)
    if stem not in tables.TENSORS:
        return name
    stem = tables.TENSORS[stem]
    return f"{stem.replace('{i}', layer[0]) if layer else stem}.{ending}"


def _unpermuted(name: str, tensor: GgufTensor, config: Mapping[str, Any]) -> GgufTensor:
    """The tensor with its rows in Hugging Face's order.

    llama.cpp rotates neighbouring pairs, Hugging Face the two halves of a head: GGUF stores row
    (half t, position j) of a head at (j, t).
    """
    for part, heads in tables.PERMUTED_HEADS.items():
        if f".{part}." in name:
            rows = np.arange(tensor.shape[0]).reshape(config[heads], -1, 2)
            return replace(tensor, order=rows.swapaxes(1, 2).reshape(-1))
    return tensor
