"""The proxy: OpenAI's dialects on one side, Triton's `tensorrt_llm` model on the other.

It owns text: chat templates, tokens, detokenization and stop strings. Triton sees token ids.
"""
