"""A small Llama without torch, for the tests that break one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from model_files import FIELDS, huggingface_shapes, write_safetensors

from builder.dtypes import NUMPY, Array


@pytest.fixture(scope="session")
def tiny_weights() -> dict[str, Array]:
    """Random bfloat16 tensors of a Llama with the config FIELDS."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(shape, np.float32).astype(NUMPY["bfloat16"])
        for name, shape in huggingface_shapes(FIELDS).items()
    }


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny_weights: dict[str, Array], tiny_tokenizer: Path) -> Path:
    """A Hugging Face folder of one's own, to be broken."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(FIELDS))
    write_safetensors(folder / "model.safetensors", tiny_weights)
    return folder
