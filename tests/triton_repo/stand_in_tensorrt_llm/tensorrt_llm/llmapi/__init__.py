from tensorrt_llm.llmapi.kv_cache import KvCacheRetentionConfig
from tensorrt_llm.llmapi.llm import LLM
from tensorrt_llm.llmapi.sampling import GuidedDecodingParams, SamplingParams

__all__ = ["LLM", "GuidedDecodingParams", "KvCacheRetentionConfig", "SamplingParams"]
