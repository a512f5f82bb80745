"""ModelOpt's two exports of one quantization: Hugging Face's form, and TensorRT-LLM's."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import modelopt.torch.quantization as mtq
    import torch
    import transformers
    from modelopt.torch.export import (
        export_hf_checkpoint,
        export_tensorrt_llm_checkpoint,
        model_config_export,
    )
    from modelopt.torch.quantization import model_calib
from modelopt_export import DECODER_TYPES, _any_config

from builder.calibration import Calibration
from quantize.extraction import extract

CONFIGS = {
    "fp8": mtq.FP8_DEFAULT_CFG,
    "nvfp4": mtq.NVFP4_DEFAULT_CFG,
    "int4_awq": mtq.INT4_AWQ_CFG,
    "int8_sq": mtq.INT8_SMOOTHQUANT_CFG,
    "w4a8_awq": mtq.W4A8_AWQ_BETA_CFG,
    "int8_max": mtq.INT8_DEFAULT_CFG,
    "int4_max": mtq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG,
    "mxint8": mtq.MXINT8_DEFAULT_CFG,
}
SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {
    "vocab_size": 384,
    "n_embd": 256,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
}
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SIZES),
    "qwen2": ("Qwen2", {**SIZES, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {**SIZES, "head_dim": 96}),
    "nemotron": ("Nemotron", SIZES),
    "gemma": ("Gemma", {**SIZES, "head_dim": 64, "tie_word_embeddings": True}),
    "gpt2": ("GPT2", GPT2),
    "phi3": ("Phi3", SIZES),
    "mixtral": ("Mixtral", {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
"""Name → transformers' class prefix and config."""


def quantize(
    name: str, *, config: str, fp8_kv_cache: bool = False, plain: Sequence[str] = ()
) -> Any:
    """A random model, calibrated on random tokens. `plain` are modules that stay unquantized."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _random(name)
        chosen = copy.deepcopy(CONFIGS[config])
        chosen["quant_cfg"] += [{"quantizer_name": f"*{each}*", "enable": False} for each in plain]
        if fp8_kv_cache:
            cache = mtq.FP8_KV_CFG["quant_cfg"]
            chosen = mtq.update_quant_cfg_with_kv_cache_quant(chosen, cache)
        return mtq.quantize(model, chosen, _calibrate)


def calibrated(name: str, *, config: str) -> tuple[Any, Calibration]:
    """The same model, with an FP8 KV cache for FP8, and what ModelOpt found of it."""
    found = {}
    apply = model_calib.apply_pre_quant_scale_and_smooth

    def recorded(linear: Any, pre_quant_scale: Any = None) -> None:
        found[linear] = 1.0 / pre_quant_scale.to(torch.float32)
        apply(linear, pre_quant_scale)

    with patch.object(model_calib, apply.__name__, recorded):
        model = quantize(name, config=config, fp8_kv_cache=config == "fp8")
    names = {module: each for each, module in model.named_modules()}
    return model, extract(model, {names[linear]: factor for linear, factor in found.items()})


def save(name: str, folder: Path, tokenizer: Path) -> Path:
    """The model before it is quantized, as a Hugging Face folder."""
    _random(name).save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def export_huggingface(model: Any, out: Path, tokenizer: Path) -> Path:
    """Hugging Face's form of a quantized model, which is of no more use then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_hf_checkpoint(model, dtype=torch.bfloat16, export_dir=out)
    shutil.copytree(tokenizer, out, dirs_exist_ok=True)
    return out


def export(model: Any, out: Path, *, tp: int = 1, pp: int = 1) -> Path:
    """TensorRT-LLM's form of a quantized model."""
    with (
        warnings.catch_warnings(),
        patch.object(model_config_export, "convert_to_tensorrt_llm_config", _any_config),
    ):
        warnings.simplefilter("ignore")
        export_tensorrt_llm_checkpoint(
            model,
            DECODER_TYPES[model.config.model_type],
            torch.bfloat16,
            out,
            inference_tensor_parallel=tp,
            inference_pipeline_parallel=pp,
        )
    return out


def _random(name: str) -> Any:
    kind, fields = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**fields, initializer_range=0.1)
    transformer = getattr(
        transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    )
    model = transformer(config).to(torch.bfloat16).eval()
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            # Norms and biases start as ones and zeros, and all weights with one range.
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(1 + index % 5 / 10)
    model.config.architectures = [type(model).__name__]
    return model


def _calibrate(model: Any) -> None:
    for seed in range(2):
        torch.manual_seed(seed)
        model(torch.randint(0, 384, (2, 32)))
