"""Engines of tiny models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_engine import EngineOf

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions
from builder.targets.openvino import build

SMALL = LimitOptions(max_batch_size=16, max_num_tokens=64, kv_cache_gib=0.01)


@pytest.fixture(scope="session")
def engine_of(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> EngineOf:
    """Name of a tiny model → its float32 engine folder."""
    root = tmp_path_factory.mktemp("engines")

    def make(name: str) -> Path:
        checkpoint, engine = root / name / "checkpoint", root / name / "engine"
        convert(tiny_models[name], checkpoint, options=ConvertOptions(dtype="float32"))
        build(checkpoint, engine, options=SMALL)
        return engine

    return make


@pytest.fixture(scope="session")
def tiny_engine_dir(engine_of: EngineOf) -> Path:
    """The float32 engine of the tiny Llama."""
    return engine_of("llama")
