"""ModelOpt's export of a Hugging Face folder: the reference for the tensors of a checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint, model_config_export
    from transformers import AutoModelForCausalLM

DECODER_TYPES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen",
    "qwen3_moe": "qwen",
    "qwen2_moe": "qwen",
    "qwen3": "qwen",
    "gpt2": "gpt",
    "starcoder2": "gpt",
    "nemotron": "gpt",
    "gptj": "gptj",
    "falcon": "falcon",
    "bloom": "bloom",
    "mpt": "mpt",
    # not ModelOpt's own: its way with models that are built alike
    "cohere": "llama",
    "dbrx": "dbrx",
    "phimoe": "phi3",
    "granitemoe": "llama",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "glm": "phi3",
    "granite": "llama",
    "gpt_bigcode": "gpt",
    "phi": "phi",
    "phi3": "phi3",
}
_write_config = model_config_export.convert_to_tensorrt_llm_config


def _any_config(model_config: Any, *arguments: Any, **options: Any) -> Any:
    """ModelOpt's config.json, also of decoders that it leaves to an installed TensorRT-LLM."""
    try:
        return _write_config(model_config, *arguments, **options)
    except NotImplementedError:
        model_config.layers[0].decoder_type = "llama"
        return _write_config(model_config, *arguments, **options)


def export(folder: Path, out: Path, dtype: str, *, tp: int = 1, pp: int = 1) -> None:
    """Write ModelOpt's checkpoint of the model in `folder` to `out`."""
    with (
        warnings.catch_warnings(),
        patch.object(model_config_export, "convert_to_tensorrt_llm_config", _any_config),
    ):
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        decoder = DECODER_TYPES[model.config.model_type]
        export_tensorrt_llm_checkpoint(
            model,
            decoder,
            getattr(torch, dtype),
            out,
            inference_tensor_parallel=tp,
            inference_pipeline_parallel=pp,
        )
