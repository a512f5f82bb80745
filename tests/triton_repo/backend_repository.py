"""A repository of `tensorrt_llm` alone, on a real Triton, with our executor behind it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from running import stream

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions
from builder.targets.openvino import build
from builder.targets.openvino_options import EngineOptions
from triton_repo.launch.triton import LaunchConfig, Triton
from triton_repo.layout import write_repository
from triton_repo.settings.options import RepositoryOptions

BEAMS = 3
LIMITS = LimitOptions(max_batch_size=16, max_num_tokens=64, kv_cache_gib=0.01)
VOCAB = 384


def engine(model: Path, folder: Path) -> Path:
    """A float32 engine of a tiny model that takes beams and adapters."""
    convert(model, folder / "checkpoint", options=ConvertOptions(dtype="float32"))
    build(
        folder / "checkpoint",
        folder / "engine",
        options=LIMITS,
        engine=EngineOptions(max_beam_width=BEAMS, max_lora_rank=4),
    )
    return folder / "engine"


@contextmanager
def serving(
    engine_dir: Path, folder: Path, *, alone: bool = True, **options: Any
) -> Iterator[Triton]:
    """Triton with the engine's `tensorrt_llm`, with no other model where it is to be `alone`."""
    chosen = RepositoryOptions(normalize_log_probs=False, stats_check_period_ms=20, **options)
    write_repository(engine_dir, folder / "repo", options=chosen)
    for other in (folder / "repo").iterdir():
        if alone and other.is_dir() and other.name != "tensorrt_llm":
            shutil.rmtree(other)
    with Triton(LaunchConfig(repository=folder / "repo", log_path=folder / "log")) as running:
        yield running


def one(value: Any, dtype: type) -> np.ndarray:
    return np.array([[value]], dtype)


def inputs(prompt: list[int], tokens: int, **more: np.ndarray | None) -> dict[str, np.ndarray]:
    """A request's tensors; None leaves one out."""
    given = {
        "input_ids": np.array([prompt], np.int32),
        "input_lengths": one(len(prompt), np.int32),
        "request_output_len": one(tokens, np.int32),
        **more,
    }
    return {name: value for name, value in given.items() if value is not None}


def ask(triton: Triton, prompt: list[int], tokens: int, **more: np.ndarray | None) -> list[int]:
    """The new tokens for a prompt, streamed."""
    request = {"streaming": one(True, np.bool_), **more}
    return [
        int(token)
        for result in stream(triton, "tensorrt_llm", inputs(prompt, tokens, **request))
        for token in result.as_numpy("output_ids").reshape(-1)
    ]
