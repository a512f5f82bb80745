"""The repository of target `llmapi`: one model, whose engine is TensorRT-LLM's LLM API."""
