"""Every setting that a `model.yaml` takes, in the order in which it is written.

Triton's llmapi model hands each key but `triton_config` (and `logits_post_processors`, where it is
new enough) to `LLM(**settings)`. Source: BaseLlmArgs and TorchLlmArgs of TensorRT-LLM's
`tensorrt_llm/llmapi/llm_args.py`, read at four points of its main branch: late 2025 (`since`
1.2), early and middle 2026 (1.3) and autumn 2026, after the engine compiler was removed (1.4).
So a `since` of 1.4 may be in the last candidates of 1.3 already: no version in between was read.
"""

from __future__ import annotations

from typing import Any

from builder.limits import INT32_MAX
from builder.targets.llmapi import objects
from builder.targets.llmapi.objects import BETA, DEPRECATED, PROTOTYPE
from builder.targets.llmapi.setting import (
    Kind,
    Object,
    Setting,
    flag,
    group,
    real,
    table,
    text,
    value,
    whole,
)
from builder.targets.llmapi.speculative import SPECULATIVE

VERSIONS = ("1.2", "1.3", "1.4")

_MODEL = (
    text("model", required=True),
    text("tokenizer"),
    text("tokenizer_mode", "auto", "auto", "slow"),
    text("custom_tokenizer", since="1.3", status=PROTOTYPE),
    flag("skip_tokenizer_init"),
    flag("trust_remote_code"),
    text("dtype", "auto", "auto", "float16", "bfloat16", "float32"),
    text("revision"),
    text("tokenizer_revision"),
    value("model_kwargs", Kind.MAP, since="1.3", status=PROTOTYPE),
    text("backend", "pytorch", "pytorch", status=DEPRECATED),
    text("load_format", "auto", "auto", "dummy", "vision_only", "gms"),
    text("checkpoint_format", status=PROTOTYPE),
    value("checkpoint_loader", Kind.PYTHON, status=PROTOTYPE),
    text(
        *("checkpoint_io_policy", "auto", "auto", "native", "rank_striped_read_ahead"),
        since="1.4",
        status=PROTOTYPE,
    ),
    text("generation_config", "trtllm", "auto", "trtllm", since="1.4", status=PROTOTYPE),
    flag("force_dynamic_quantization", status=PROTOTYPE),
    group("mx_config", objects.MODEL_EXPRESS, null=False, since="1.3", status=PROTOTYPE),
    group("gms_config", objects.MEMORY_SERVICE, null=False, since="1.3", status=PROTOTYPE),
)

_PARALLEL = (
    whole("tensor_parallel_size", 1, least=1),
    whole("pipeline_parallel_size", 1, least=1),
    whole("context_parallel_size", 1, least=1),
    whole("gpus_per_node", least=1, status=BETA),
    whole("moe_cluster_parallel_size", least=1, status=DEPRECATED),
    whole("moe_tensor_parallel_size", least=1),
    whole("moe_expert_parallel_size", least=1),
    flag("enable_attention_dp", status=BETA),
    group("attention_dp_config", objects.ATTENTION_DP, status=BETA),
    flag("enable_lm_head_tp_in_adp", status=PROTOTYPE),
    value("pp_partition", Kind.WHOLES, least=1, since="1.3", status=PROTOTYPE),
    group("cp_config", objects.CONTEXT_PARALLEL, status=PROTOTYPE),
    group("dwdp_config", objects.DWDP, since="1.3", status=PROTOTYPE),
    text(
        *("allreduce_strategy", "AUTO", "AUTO", "NCCL", "UB", "MINLATENCY", "ONESHOT"),
        *("TWOSHOT", "LOWPRECISION", "MNNVL", "NCCL_SYMMETRIC"),
        null=True,
        status=BETA,
    ),
)


def _limit(name: str, default: int | None = None, **more: Any) -> Setting:
    return whole(name, default, null=True, least=1, most=INT32_MAX, **more)


_LIMITS = (
    _limit("max_batch_size", 2048),
    _limit("max_input_len", 1024),
    _limit("max_seq_len"),
    _limit("max_num_tokens", 8192),
    _limit("max_beam_width", 1),
    _limit("encoder_max_batch_size", since="1.4", status=PROTOTYPE),
    _limit("encoder_max_num_tokens", since="1.4", status=PROTOTYPE),
)

_CACHE = (
    group("kv_cache_config", objects.KV_CACHE, null=False),
    group("kv_cache_compression_config", objects.KV_COMPRESSION, since="1.4", status=PROTOTYPE),
    group("kv_connector_config", objects.KV_CONNECTOR, status=PROTOTYPE),
    group("cache_transceiver_config", objects.CACHE_TRANSCEIVER, status=PROTOTYPE),
)

_SCHEDULING = (
    flag("enable_chunked_prefill"),
    group("scheduler_config", objects.SCHEDULER, null=False, status=PROTOTYPE),
    flag("disable_overlap_scheduler", status=BETA),
    real("batch_wait_timeout_ms", 0.0, least=0, status=PROTOTYPE),
    whole("batch_wait_timeout_iters", 0, least=0, status=PROTOTYPE),
    real("batch_wait_max_tokens_ratio", 0.0, least=0, most=1, status=PROTOTYPE),
    whole("stream_interval", 1, least=1),
    flag("enable_early_first_token_response", since="1.3", status=PROTOTYPE),
    group("reorder_policy_config", objects.REORDER, since="1.3", status=PROTOTYPE),
    flag("enable_resource_governor", since="1.3", status=PROTOTYPE),
)

_COMPUTE = (
    group("cuda_graph_config", objects.CUDA_GRAPH, status=BETA),
    group("encoder_cuda_graph_config", objects.ENCODER_CUDA_GRAPH, since="1.4", status=PROTOTYPE),
    flag("enable_encoder_decoder_mixed_cuda_graph", True, since="1.4", status=PROTOTYPE),
    group("torch_compile_config", objects.TORCH_COMPILE, status=PROTOTYPE),
    text(
        *("prefill_cuda_graph_backend", "disabled", "disabled", "piecewise", "breakable"),
        since="1.4",
        status=PROTOTYPE,
    ),
    value("prefill_capture_num_tokens", Kind.WHOLES, since="1.4", status=PROTOTYPE),
    text("attn_backend", "TRTLLM", "VANILLA", "TRTLLM", "FLASHINFER", status=BETA),
    group("sparse_attention_config", objects.SPARSE_ATTENTION, status=PROTOTYPE),
    flag("enable_mla_skip_correction", since="1.4", status=PROTOTYPE),
    real("mla_skip_correction_threshold", 8.0, above=0, most=32, since="1.4", status=PROTOTYPE),
    group("moe_config", objects.MOE, null=False, status=BETA),
    group("nvfp4_gemm_config", objects.NVFP4_GEMM, null=False, since="1.3", status=BETA),
    flag("use_cute_dsl_blockscaling_mm", since="1.3", status=PROTOTYPE),
    flag("use_cute_dsl_blockscaling_bmm", since="1.3", status=PROTOTYPE),
    flag("use_cute_dsl_bf16_bmm", since="1.3", status=PROTOTYPE),
    flag("use_cute_dsl_bf16_gemm", since="1.3", status=PROTOTYPE),
    flag("use_fine_grained_sync", since="1.4", status=PROTOTYPE),
    flag("enable_autotuner", True, status=PROTOTYPE),
    flag("enable_min_latency", status=BETA),
    flag("enable_low_latency_host_dispatch", since="1.4", status=PROTOTYPE),
)

_GENERATION = (
    group("speculative_config", SPECULATIVE),
    text("guided_decoding_backend", None, "xgrammar", "llguidance"),
    flag("gather_generation_logits", status=PROTOTYPE),
    value("batched_logits_processor", Kind.PYTHON),
    text("sampler_type", "auto", "auto", "TorchSampler", "TRTLLMSampler", until="1.4"),
    flag("sampler_force_async_worker", since="1.3", status=PROTOTYPE),
    flag("enable_in_graph_sampling", since="1.4", status=PROTOTYPE),
    flag("disable_flashinfer_sampling", since="1.3", until="1.4", status=PROTOTYPE),
    flag("enable_speculative_beam_history_d2h", since="1.3", status=PROTOTYPE),
    value("decoding_config", Kind.PYTHON, status=DEPRECATED),
    text("reasoning_parser", status=PROTOTYPE),
    text("post_processor_hook", since="1.4", status=PROTOTYPE),
)

_ADAPTERS = (
    flag("enable_lora"),
    group("lora_config", objects.LORA),
    group("peft_cache_config", objects.PEFT_CACHE, status=PROTOTYPE),
)

_MODALITIES = (
    group("multimodal_config", objects.MULTIMODAL, since="1.4", status=PROTOTYPE),
    flag("mm_encoder_only", status=PROTOTYPE),
    flag("disable_mm_encoder", since="1.4", status=PROTOTYPE),
    flag("encode_only", since="1.3", status=PROTOTYPE),
    real("video_pruning_rate", least=0, below=1, since="1.3", until="1.4", status=PROTOTYPE),
)

_OBSERVING = (
    whole("iter_stats_max_iterations", least=-1, status=PROTOTYPE),
    whole("request_stats_max_iterations", least=-1, status=PROTOTYPE),
    flag("enable_iter_perf_stats", status=PROTOTYPE),
    flag("enable_iter_req_stats", status=PROTOTYPE),
    flag("print_iter_log", status=BETA),
    whole("max_stats_len", 1000, least=-1, since="1.3", status=PROTOTYPE),
    flag("return_perf_metrics", status=PROTOTYPE),
    text("perf_metrics_output_dir", since="1.4", status=PROTOTYPE),
    whole("perf_metrics_max_requests", 0, least=0, status=DEPRECATED),
    group("prometheus_metrics_config", objects.PROMETHEUS, since="1.3", status=PROTOTYPE),
    flag("enable_energy_metrics", since="1.3", status=PROTOTYPE),
    text("otlp_traces_endpoint", since="1.3", status=PROTOTYPE),
    flag("enable_layerwise_nvtx_marker", status=BETA),
    group(
        *("layer_wise_benchmarks_config", objects.LAYERWISE),
        null=False,
        since="1.3",
        status=PROTOTYPE,
    ),
    group("telemetry_config", objects.TELEMETRY, null=False, since="1.3", status=PROTOTYPE),
)

_PROCESSES = (
    whole("num_postprocess_workers", 0, least=0, status=PROTOTYPE),
    text("postprocess_tokenizer_dir", status=PROTOTYPE),
    whole("num_serve_frontends", 1, least=1, most=64, since="1.4", status=PROTOTYPE),
    text("orchestrator_type", None, "rpc", "ray", status=PROTOTYPE),
    text("ray_worker_extension_cls", status=PROTOTYPE),
    group("ray_placement_config", objects.RAY_PLACEMENT, since="1.3", status=PROTOTYPE),
    value("ray_worker_nsight_options", Kind.WORDS, since="1.3", status=PROTOTYPE),
    value("mpi_session", Kind.PYTHON),
    value("env_overrides", Kind.WORDS, since="1.3", status=PROTOTYPE),
    whole("garbage_collection_gen0_threshold", 20_000, status=BETA),
    group("sleep_config", objects.SLEEP, since="1.3", status=PROTOTYPE),
)

LLM = Object(
    settings=table(
        *_MODEL,
        *_PARALLEL,
        *_LIMITS,
        *_CACHE,
        *_SCHEDULING,
        *_COMPUTE,
        *_GENERATION,
        *_ADAPTERS,
        *_MODALITIES,
        *_OBSERVING,
        *_PROCESSES,
    )
)
"""What `LLM()` takes."""

MODEL_YAML = Object(
    settings={
        **LLM.settings,
        **table(
            value("logits_post_processors", Kind.WORDS, since="1.4"),
            group("triton_config", objects.TRITON, null=False),
        ),
    }
)
"""What the file takes."""

RENAMED = {
    "acceptance_length_threshold": "speculative_config.acceptance_rate_threshold",
    "autotuner_enabled": "enable_autotuner",
    "cuda_graph_batch_sizes": "cuda_graph_config.batch_sizes",
    "cuda_graph_max_batch_size": "cuda_graph_config.max_batch_size",
    "cuda_graph_padding_enabled": "cuda_graph_config.enable_padding",
    "enable_chunked_context": "enable_chunked_prefill",
    "enable_kv_cache_reuse": "kv_cache_config.enable_block_reuse",
    "enable_sleep": "sleep_config",
    "ep": "moe_expert_parallel_size",
    "ep_size": "moe_expert_parallel_size",
    "hf_revision": "revision",
    "kv_cache_config.block_reuse_config.block_reuse_policy": (
        "kv_cache_config.block_reuse_config.policy"
    ),
    "kv_cache_dtype": "kv_cache_config.dtype",
    "kv_cache_free_gpu_mem_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "kv_cache_free_gpu_memory_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "moe_backend": "moe_config.backend",
    "moe_load_balancer": "moe_config.load_balancer",
    "moe_ep": "moe_expert_parallel_size",
    "moe_max_num_tokens": "moe_config.max_num_tokens",
    "pp": "pipeline_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "speculative_config.BEGIN_THINKING_PHASE_TOKEN": (
        "speculative_config.begin_thinking_phase_token"
    ),
    "speculative_config.END_THINKING_PHASE_TOKEN": "speculative_config.end_thinking_phase_token",
    "speculative_config.num_nextn_predict_layers": "speculative_config.max_draft_len",
    "speculative_config.speculative_model_dir": "speculative_config.speculative_model",
    "speculative_model": "speculative_config.speculative_model",
    "speculative_model_dir": "speculative_config.speculative_model",
    "torch_compile_enabled": "torch_compile_config",
    "torch_compile_piecewise_cuda_graph": "prefill_cuda_graph_backend",
    "tp": "tensor_parallel_size",
    "tp_size": "tensor_parallel_size",
    "use_cuda_graph": "cuda_graph_config",
}
"""What earlier versions, Triton's C++ backend or the command line of `trtllm-serve` call a setting,
by what it is called now."""

REMOVED = {
    "batching_type": "in-flight batching is all there is",
    "build_config": "nothing is built: give the limits themselves, such as max_batch_size",
    "calib_config": "calibrate with trtbuild quantize --hf",
    "embedding_parallel_mode": "it was of the engine compiler",
    "enable_build_cache": "nothing is built",
    "enable_prompt_adapter": "the PyTorch backend has no prompt adapters",
    "enable_tqdm": "it was of the engine compiler",
    "enable_trtllm_sampler": "TorchSampler is the only sampler",
    "extended_runtime_perf_knob_config": "its kernels choose for themselves",
    "fail_fast_on_attention_window_too_large": "it was of the engine's runtime",
    "fast_build": "nothing is built",
    "max_prompt_adapter_token": "the PyTorch backend has no prompt adapters",
    "normalize_log_probs": "it was of the engine's runtime",
    "quant_config": "the model folder says how it is quantized",
    "workspace": "nothing is built",
}
"""What 1.2 took for engines, and why it isn't there any more."""
