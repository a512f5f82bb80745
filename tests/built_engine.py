"""TensorRT-LLM engine folders as a build leaves them, but for the engines: a stand-in's bytes.

`config.json` and manifest are from the code that builds; no real engine was at hand.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder import artifact
from builder.checkpoint_config import pretrained_config
from builder.manifest import Manifest
from builder.mapping import Layout
from builder.source.hf_config import model_config
from builder.targets.tensorrt_llm.resolve import BuildOptions, resolve

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
}
"""Llama 3.1 8B."""
LIMITS = {"max_batch_size": 64, "max_seq_len": 8192, "max_num_tokens": 4096}
VERSIONS = {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48", "cuda": "13.1.0.036"}


def write(
    folder: Path,
    *,
    tp: int = 1,
    sm: int | None = 90,
    gpu: str = "NVIDIA H100 80GB HBM3",
    versions: Mapping[str, str] = VERSIONS,
    settings: Mapping[str, str] | None = None,
    image: str | None = None,
    ours: bool = True,
    rank_bytes: int = 1000,
    tokenizer: Path | None = None,
    **mapping: Any,
) -> Path:
    """An engine folder, with our manifest or (`ours` False) as trtllm-build alone leaves it."""
    checkpoint = pretrained_config(
        model_config(Path("llama"), LLAMA, "bfloat16"), "bfloat16", Layout(tp=tp)
    )
    checkpoint["mapping"] |= mapping
    config = resolve(checkpoint, BuildOptions(**LIMITS, settings=settings or {})).config.to_json()
    manifest = Manifest(
        kind="engine",
        made_by={"trtbuild": "0", **versions},
        source={},
        options={
            "target": "tensorrt-llm",
            "name": "llama",
            "build_config": config,
            "gpu_sm": sm,
            "image": image,
        },
        about={"name": "llama", "gpu": sm and {"name": gpu, "sm": sm}, "image": image},
    )
    with artifact.stage(folder, manifest) as staging:
        engine = {
            "version": versions.get("tensorrt_llm"),
            "pretrained_config": checkpoint,
            "build_config": config,
        }
        (staging.path / "config.json").write_text(json.dumps(engine))
        for file in tokenizer.iterdir() if tokenizer else ():
            shutil.copyfile(file, staging.path / file.name)
        for rank in range(tp):
            name = f"rank{rank}.engine"
            (staging.path / name).write_bytes(b"a stand-in for an engine")
            # as large as it has to be, takes no room, and is never read
            os.truncate(staging.path / name, rank_bytes)
            if rank_bytes > 1 << 20:
                staging.record(name, f"sha256:{'0' * 64}")
    if not ours:
        (folder / "trtbuild.json").unlink()
    return folder
