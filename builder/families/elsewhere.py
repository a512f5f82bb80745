"""Architectures that TensorRT-LLM runs with its PyTorch backend and never had an engine for.

Source: TensorRT-LLM 1.2's `MODEL_MAP` (engines) against its list of supported PyTorch models.
"""

from __future__ import annotations

LLMAPI_ONLY = frozenset(
    {
        "DeepseekV3ForCausalLM",
        "DeepseekV32ForCausalLM",
        "Exaone4ForCausalLM",
        "Gemma3nForConditionalGeneration",
        "Glm4MoeForCausalLM",
        "GptOssForCausalLM",
        "KimiK2ForCausalLM",
        "Llama4ForConditionalGeneration",
        "NemotronHForCausalLM",
        "Qwen3NextForCausalLM",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
    }
)
