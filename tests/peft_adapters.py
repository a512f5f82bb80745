"""LoRA adapters of tiny models, written by PEFT, and what the models compute with them merged in.

Weights are random numbers that float16 holds, and scales are powers of two, so that nothing is
lost on the way to an engine.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def write(
    folder: Path, model: Path, targets: list[str], *, seed: int = 0, r: int = 4, **fields: Any
) -> Path:
    """An adapter of `targets` (names of linears) of the model in a folder; `fields` are PEFT's."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=r, target_modules=targets, task_type="CAUSAL_LM", **{"lora_alpha": 2 * r, **fields}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(_model(model), config)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                values = torch.randn(parameter.shape, generator=generator) * 0.2
                parameter.data = values.half().float()
        adapted.save_pretrained(folder)
    return folder


def merged(model: Path, adapter: Path | None) -> Any:
    """transformers' model in float32, with the adapter merged in by PEFT."""
    from peft import PeftModel

    found = _model(model)
    if adapter is None:
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(found, adapter).merge_and_unload()


def logits(model: Any, ids: list[int]) -> Any:
    """float32[len(ids), vocab] by transformers."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """The likeliest next tokens by transformers, one after the other."""
    tokens = list(ids)
    for _ in range(count):
        tokens.append(int(logits(model, tokens)[-1].argmax()))
    return tokens[len(ids) :]


def by_hand(folder: Path, shapes: dict[str, tuple[int, int]], *, r: int = 2, **fields: Any) -> Path:
    """An adapter without PEFT: linears by name, each [in, out]; numbers count upwards."""
    from safetensors.numpy import save_file

    tensors, count = {}, 1
    for name, (into, out) in shapes.items():
        for letter, shape in (("A", (r, into)), ("B", (out, r))):
            size = shape[0] * shape[1]
            values = np.arange(count, count + size, dtype=np.float32).reshape(shape)
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = values
            count += size
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": r, "lora_alpha": r, **fields}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _model(folder: Path) -> Any:
    import torch
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
