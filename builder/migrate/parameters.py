"""What became of each parameter of Triton's C++ model `tensorrt_llm` in the LLM API, as data.

The parameters are those of `all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt` of
TensorRT-LLM 1.2 and of its C++ backend; values are texts, and an empty one asks for nothing.
"""

from __future__ import annotations

from typing import Any

from builder.migrate.row import Fate, Row

_NEUTRAL = ("", None)
_OFF = (*_NEUTRAL, "false", "False", "0")
_ON = (*_NEUTRAL, "true", "True", "1")
_BOOLS = {"true": "true", "True": "true", "1": "true", "false": "false", "False": "false"}
_BOOLS |= {"0": "false"}


def _kept(name: str, setting: str, text: str = "", **more: Any) -> Row:
    return Row(
        name=name,
        fate=Fate.KEPT,
        setting=setting,
        text=text,
        neutral=more.pop("neutral", _NEUTRAL),
        **more,
    )


def _lost(name: str, text: str, neutral: tuple[Any, ...] = _NEUTRAL, **more: Any) -> Row:
    return Row(name=name, fate=Fate.LOST, text=text, neutral=neutral, **more)


def _unneeded(text: str, *names: str) -> tuple[Row, ...]:
    return tuple(Row(name=name, fate=Fate.UNNEEDED, text=text, neutral=_NEUTRAL) for name in names)


_DRAFTING = "see build_config.speculative_decoding_mode"

PARAMETERS = (
    _kept("max_beam_width", "max_beam_width", neutral=(*_NEUTRAL, "1")),
    _kept("max_tokens_in_paged_kv_cache", "kv_cache_config.max_tokens"),
    _kept("max_attention_window_size", "kv_cache_config.max_attention_window"),
    _kept(
        "batch_scheduler_policy",
        "scheduler_config.capacity_scheduler_policy",
        words={
            "guaranteed_no_evict": "GUARANTEED_NO_EVICT",
            "max_utilization": "MAX_UTILIZATION",
        },
    ),
    _kept("kv_cache_free_gpu_mem_fraction", "kv_cache_config.free_gpu_memory_fraction"),
    _kept("cross_kv_cache_fraction", "kv_cache_config.cross_kv_cache_fraction"),
    _kept("kv_cache_host_memory_bytes", "kv_cache_config.host_cache_size", neutral=_OFF),
    _kept("enable_kv_cache_reuse", "kv_cache_config.enable_block_reuse", words=_BOOLS),
    _kept("enable_chunked_context", "enable_chunked_prefill", words=_BOOLS),
    _kept("cancellation_check_period_ms", "triton_config.cancellation_check_period_ms"),
    _kept("iter_stats_max_iterations", "iter_stats_max_iterations"),
    _kept("request_stats_max_iterations", "request_stats_max_iterations"),
    _kept("lora_cache_optimal_adapter_size", "peft_cache_config.optimal_adapter_size"),
    _kept("lora_cache_max_adapter_size", "peft_cache_config.max_adapter_size"),
    _kept("lora_cache_gpu_memory_fraction", "peft_cache_config.device_cache_percent"),
    _kept("lora_cache_host_memory_bytes", "peft_cache_config.host_cache_size"),
    _kept("guided_decoding_backend", "guided_decoding_backend"),
    _lost("sink_token_length", "no attention sinks: kv_cache_config.max_attention_window", _OFF),
    _lost(
        "exclude_input_in_output",
        "each request says it: sampling_param_exclude_input_from_output",
        _OFF,
    ),
    _lost("normalize_log_probs", "log probabilities are never divided by the length", _OFF),
    _lost("lora_prefetch_dir", "adapters aren't prefetched: the first request loads one"),
    _lost(
        "gpu_weights_percent",
        "weights stay in the GPU's memory: take more GPUs or a smaller recipe",
        (*_NEUTRAL, "1", "1.0"),
    ),
    _lost(
        "gpu_device_ids",
        "choose the GPUs with CUDA_VISIBLE_DEVICES; of several instances, the llmapi model's own "
        "parameter gpu_device_ids",
    ),
    _lost("participant_ids", "ranks beyond one machine are started with trtllm-llmapi-launch"),
    _lost(
        "num_nodes",
        "ranks beyond one machine are started with trtllm-llmapi-launch",
        (*_NEUTRAL, "1"),
    ),
    Row(
        name="decoding_mode",
        fate=Fate.UNNEEDED,
        text="each request's parameters say it",
        only=("top_k", "top_p", "top_k_top_p", "beam_search", *_NEUTRAL),
    ),
    _lost("decoding_mode", _DRAFTING),
    *(
        _lost(name, _DRAFTING)
        for name in (
            "lookahead_window_size",
            "lookahead_ngram_size",
            "lookahead_verification_set_size",
            "medusa_choices",
            "eagle_choices",
        )
    ),
    _lost("speculative_decoding_fast_logits", _DRAFTING, _OFF),
    _lost("encoder_model_path", "give the whole model's folder", _NEUTRAL),
    *_unneeded("requests are always batched in flight", "gpt_model_type"),
    *_unneeded("the model folder is given", "gpt_model_path", "tokenizer_dir"),
    *_unneeded("the backend makes it from the tokenizer", "xgrammar_tokenizer_info_path"),
    *_unneeded("the backend starts its own processes", "executor_worker_path"),
    *_unneeded("blocks are always brought back", "kv_cache_onboard_blocks"),
    *_unneeded("Triton has no metrics of this backend", "stats_check_period_ms"),
    *_unneeded("nothing is polled", "recv_poll_period_ms"),
    *_unneeded(
        "the backend chooses its kernels",
        "enable_context_fmha_fp32_acc",
        "multi_block_mode",
    ),
    *_unneeded("graphs are on: see cuda_graph_config", "cuda_graph_mode", "cuda_graph_cache_size"),
    *_unneeded("the model's inputs are texts", "FORCE_CPU_ONLY_INPUT_TENSORS"),
)
