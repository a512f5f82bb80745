"""A small Llama without torch, for the tests that break one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A real file system in memory at `place`, mounted with these options."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system isn't permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    with mounted(tmp_path / "disk", "size=1m") as place:
        yield place


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system that can't be written to."""
    with mounted(tmp_path / "disk", "ro,size=64m") as place:
        yield place
