"""The `tensorrt_llm` model of target `llmapi`: TensorRT-LLM's LLM API behind Triton's tensors.

Copied whole into every such repository, beside a `model.py`, so it stands alone: beside the
standard library it needs numpy, yaml, Triton's own module and TensorRT-LLM, which NVIDIA's
containers have.
"""
