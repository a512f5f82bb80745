"""Repositories of target `llmapi` for tests, with the stand-in for TensorRT-LLM in their engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.targets.llmapi import LlmApiOptions, build
from triton_repo.layout import write_repository

FIELDS = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "float16",
    "vocab_size": 384,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
}
STAND_IN = Path(__file__).with_name("stand_in_tensorrt_llm") / "tensorrt_llm"
ADAPTERS = ("shout", "whisper")
SETTINGS = {
    "guided_decoding_backend": "xgrammar",
    "max_seq_len": "128",
    "max_beam_width": "2",
    "enable_iter_perf_stats": "true",
}


def make_model(folder: Path, tokenizer: Path, **changes: Any) -> Path:
    """A Hugging Face folder whose one tensor nobody reads, with the files of a tokenizer's."""
    shutil.copytree(tokenizer, folder)
    (folder / "config.json").write_text(json.dumps({**FIELDS, **changes}))
    header = json.dumps({"w": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    size = len(header).to_bytes(8, "little")
    (folder / "model.safetensors").write_bytes(size + header + bytes(2))
    return folder


def make_adapter(folder: Path) -> Path:
    """As much of a LoRA adapter's folder as is looked at before it is loaded."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder


def make_engine(model: Path, folder: Path, settings: Mapping[str, str] = SETTINGS) -> Path:
    """An engine that holds the model's files and two adapters."""
    adapters = [str(make_adapter(folder / "adapters" / name)) for name in ADAPTERS]
    lora = {"lora_config.lora_dir": json.dumps(adapters), "enable_lora": "true"}
    options = LlmApiOptions(copy=True, max_batch_size=8, settings={**settings, **lora})
    build(model, folder / "engine", options=options)
    return folder / "engine"


def make_repository(model: Path, folder: Path, **changes: Any) -> Path:
    """A repository whose TensorRT-LLM is the stand-in."""
    repository = folder / "repository"
    write_repository(make_engine(model, folder, **changes), repository, name="counting")
    shutil.copytree(STAND_IN, repository / "tensorrt_llm" / "1" / "tensorrt_llm")
    return repository


def calls(repository: Path) -> list[dict[str, Any]]:
    """What the stand-in was asked for: the fields that were set, in the order of the requests."""
    lines = (repository / "stand_in_calls.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def aborted(repository: Path) -> list[int]:
    """The first ids of the prompts whose requests were aborted."""
    file = repository / "stand_in_aborts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []
