"""ModelOpt's export of a Hugging Face folder: the reference for the tensors of a checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from transformers import AutoModelForCausalLM

DECODER_TYPES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen", "qwen3": "qwen"}


def export(folder: Path, out: Path, dtype: str, *, tp: int = 1, pp: int = 1) -> None:
    """Write ModelOpt's checkpoint of the model in `folder` to `out`."""
    with warnings.catch_warnings():
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
