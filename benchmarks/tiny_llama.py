"""A Llama of random weights, as small as one can be: its steps take a millisecond or two.

What stands around the engine (Triton, the executor's own bookkeeping) is all that is left to see.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from builder import families
from builder.convert import ConvertOptions, convert
from builder.dtypes import Array
from builder.limits import LimitOptions
from builder.safetensors_writer import Compute, PendingTensor, write
from builder.targets.openvino import build
from builder.targets.openvino_options import EngineOptions

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "eos_token_id": 511,
}
ADAPTER_RANK = 4
_DEVIATION = 0.1


def tiny_engine(
    work: Path, *, limits: LimitOptions | None = None, options: EngineOptions | None = None
) -> Path:
    """The float32 engine, made in `work` where it isn't there yet."""
    model = work / "model"
    if not (model / "tokenizer.json").exists():
        _write_model(model)
    convert(model, work / "checkpoint", options=ConvertOptions(dtype="float32"))
    build(
        work / "checkpoint",
        work / "engine",
        options=limits or LimitOptions(kv_cache_gib=0.1),
        engine=options or EngineOptions(),
    )
    return work / "engine"


def tiny_adapter(folder: Path, *, seed: int) -> Path:
    """A LoRA adapter for it, in PEFT's form, that changes its answers."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"peft_type": "LORA", "r": ADAPTER_RANK, "lora_alpha": 2 * ADAPTER_RANK}
    (folder / "adapter_config.json").write_text(
        json.dumps({**fields, "target_modules": ["o_proj"]})
    )
    rng, size = np.random.default_rng(seed), CONFIG["hidden_size"]
    tensors = []
    for layer in range(CONFIG["num_hidden_layers"]):
        for matrix, shape in (("A", (ADAPTER_RANK, size)), ("B", (size, ADAPTER_RANK))):
            name = f"base_model.model.model.layers.{layer}.self_attn.o_proj.lora_{matrix}.weight"
            array = (rng.standard_normal(shape) * _DEVIATION).astype(np.float32)
            tensors.append(
                PendingTensor(
                    name=name, dtype="float32", shape=shape, segments=partial(_whole, array)
                )
            )
    write(folder / "adapter_model.safetensors", tensors)
    return folder


def _write_model(folder: Path) -> None:
    """A Hugging Face folder; its weights are the same on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    rng = np.random.default_rng(0)
    sized = {**CONFIG, "head_size": 32}
    arrays = {
        name: (rng.standard_normal(shape) * _DEVIATION + (len(shape) == 1)).astype(np.float32)
        for expected in families.of("LlamaForCausalLM").expected(sized)
        for name, shape in expected.sources.items()
    }
    tensors = [
        PendingTensor(
            name=name,
            dtype="float32",
            shape=array.shape,
            segments=partial(_whole, array),
        )
        for name, array in arrays.items()
    ]
    write(folder / "model.safetensors", tensors)
    _tokenizer().save(str(folder / "tokenizer.json"))


def _whole(array: Array) -> list[Compute]:
    return [Compute(size_bytes=array.nbytes, run=lambda: array)]


def _tokenizer() -> Tokenizer:
    """The 256 bytes, then pairs that no merge makes: only a repository needs it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(a + b for a in alphabet[:16] for b in alphabet[:16])]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
