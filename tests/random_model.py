"""Tiny models with random weights, made with transformers' own classes."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIGS = {"Gemma3": "Gemma3TextConfig"}
MODELS = {"GPT2": "GPT2LMHeadModel"}
"""Names of transformers' classes that don't follow from a prefix."""

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def perturb(model: Any) -> None:
    """Norms and biases start as ones and zeros, which would hide a mix-up."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or parameter.unique().numel() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def perturb_in_bfloat16(model: Any) -> None:
    """The same, and no number that bfloat16 doesn't hold."""
    import torch

    perturb(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))


def save(
    folder: Path,
    kind: str,
    fields: dict[str, Any],
    tokenizer: Path,
    *,
    prepare: Callable[[Any], None] = perturb,
) -> Path:
    """Write a float32 model in Hugging Face's form, with the files of a tokenizer's folder.

    `kind` is the prefix of transformers' classes, `fields` are its config's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers

        torch.manual_seed(0)
        config_class = getattr(transformers, CONFIGS.get(kind, f"{kind}Config"))
        model_class = getattr(transformers, MODELS.get(kind, f"{kind}ForCausalLM"))
        model = model_class(config_class(**fields, initializer_range=0.1))
        prepare(model)
        model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder
