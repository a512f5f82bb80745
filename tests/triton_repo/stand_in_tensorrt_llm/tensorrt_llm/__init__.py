"""A stand-in for TensorRT-LLM, which isn't here: its LLM API's names, and tokens that count.

It is strict: what upstream's classes don't take raises here too. The tables of fields and
arguments, and what they mean, are from TensorRT-LLM's source of 2026: `llmapi/llm.py`,
`sampling_params.py`, `executor/request.py`, `executor/result.py`, and the names in
`usage/llm_args_golden_manifest.json`. No model is run: after token n comes n + 1, or n + 1 + the
number of the LoRA adapter, modulo the tokenizer's vocabulary; a guided answer is its guide.
"""

from tensorrt_llm.llmapi import LLM, SamplingParams
from tensorrt_llm.version import __version__

__all__ = ["LLM", "SamplingParams", "__version__"]
