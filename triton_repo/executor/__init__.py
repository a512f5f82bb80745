"""The CPU engine's executor: what TensorRT-LLM's executor is to a GPU engine.

Requests come in as token ids; `Executor` batches them in flight over one paged KV cache and
gives each its new token ids as they come.
"""
