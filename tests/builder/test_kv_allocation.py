"""Promise: the KV arithmetic is what an engine really allocates, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.convert import ConvertOptions, convert
from builder.limits import LimitOptions, kv_bytes_per_token, plan
from builder.targets.openvino import build
from triton_repo.executor.runner import Runner

SMALL = LimitOptions(max_batch_size=2, max_seq_len=256, max_num_tokens=64, kv_cache_gib=0.05)


def allocated_bytes(engine: Path, config: dict[str, Any], blocks: int) -> int:
    """The cache tensors of a running engine."""
    caches = Runner(engine, config["dtype"], blocks, threads=1)._caches.values()
    return sum(cache.byte_size for cache in caches)


def check(model: Path, folder: Path, dtype: str) -> dict[str, Any]:
    """Build and load an engine, compare, and give back the checkpoint's config."""
    convert(model, folder / "checkpoint", options=ConvertOptions(dtype=dtype))
    build(folder / "checkpoint", folder / "engine", options=SMALL)
    config: dict[str, Any] = json.loads((folder / "checkpoint" / "config.json").read_bytes())
    limits = plan(config, SMALL)
    assert limits.kv_cache_bytes == limits.kv_cache_tokens * kv_bytes_per_token(config)
    found = allocated_bytes(folder / "engine", config, limits.kv_cache_blocks)
    assert found == limits.kv_cache_bytes
    return config


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_tiny_engines_allocate_what_is_planned(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, dtype: str
) -> None:
    check(tiny_models[name], tmp_path, dtype)


def test_smollm2_allocates_what_is_planned(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Its config.json: 30 layers of 3 key-value heads of 64; 23,040 bytes a token in 16 bits."""
    config = check(smollm2_gguf, tmp_path, "bfloat16")
    assert kv_bytes_per_token(config) == 2 * 30 * 3 * 64 * 2 == 23040
