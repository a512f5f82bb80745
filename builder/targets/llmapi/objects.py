"""The objects among the LLM API's settings: the KV cache's, the scheduler's, the experts', ….

Source: the classes of TensorRT-LLM's `llmapi/llm_args.py`; `_torch/peft/lora/config.py` for LoRA
and `usage/config.py` for telemetry. How the versions were read is said in settings.py.
"""

from __future__ import annotations

from typing import Any

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

BETA, PROTOTYPE, DEPRECATED = "beta", "prototype", "deprecated"


def _prototype(since: str = "1.4") -> dict[str, Any]:
    return {"since": since, "status": PROTOTYPE}


KV_EVENTS = Object(
    settings=table(
        flag("enable_kv_cache_events"),
        text("publisher", None, "null", "zmq"),
        text("endpoint", "tcp://*:5557"),
        text("replay_endpoint"),
        whole("buffer_steps", 10_000, above=0),
        whole("hwm", 100_000, above=0),
        whole("max_queue_size", 100_000, above=0),
        text("topic", ""),
    )
)

MAMBA_STATE = Object(
    settings=table(
        whole("periodic_snapshot_interval", 0, least=0, **_prototype()),
        value(
            *("additional_snapshot_offsets_from_start", Kind.WHOLES, []),
            **{"above": 0, **_prototype()},
        ),
        value(
            *("additional_snapshot_offsets_from_end", Kind.WHOLES, []),
            **{"least": 0, **_prototype()},
        ),
        flag("enable_branch_snapshot", **_prototype()),
    )
)

BLOCK_REUSE = Object(
    settings=table(
        text(
            *("policy", "all_reusable"),
            *("all_reusable", "per_request", "per_conversation"),
            **_prototype(),
        ),
        whole("max_num_turns", 1, least=1, **_prototype()),
    )
)

KV_CACHE = Object(
    settings=table(
        flag("enable_block_reuse", True),
        whole("max_tokens"),
        value("max_attention_window", Kind.WHOLES),
        whole("sink_token_length", status=DEPRECATED),
        real("free_gpu_memory_fraction", 0.9, null=True, least=0, most=1),
        whole("host_cache_size"),
        whole("disk_cache_size", least=0, since="1.4"),
        text("disk_cache_path", since="1.4"),
        flag("onboard_blocks", True, until="1.3"),
        real("cross_kv_cache_fraction", least=0, most=1),
        whole("secondary_offload_min_priority"),
        whole("event_buffer_max_size", 0),
        whole("attention_dp_events_gather_period_ms", 5),
        group("kv_events_config", KV_EVENTS, **_prototype()),
        flag("enable_partial_reuse", True),
        flag("copy_on_partial_reuse", True),
        flag("use_uvm"),
        whole("max_gpu_total_bytes", 0, least=0),
        whole("iteration_stats_interval", 1, least=1, since="1.3"),
        text(
            *("dtype", "auto"),
            *("auto", "fp8", "nvfp4", "fp8_ds_mla", "float16", "bfloat16", "float32"),
        ),
        text(
            *("mamba_ssm_cache_dtype", "auto"),
            *("auto", "float16", "bfloat16", "float32"),
        ),
        flag("mamba_ssm_stochastic_rounding", since="1.3"),
        whole("mamba_ssm_philox_rounds", 10, least=1, since="1.3"),
        whole("tokens_per_block", 32, least=1),
        whole("mamba_state_cache_interval", least=0, since="1.3", status=DEPRECATED),
        group("mamba_state_config", MAMBA_STATE, null=False, since="1.4"),
        value("use_kv_cache_manager_v2", Kind.FLAG, "auto", words=("auto",), **_prototype("1.3")),
        flag("enable_swa_scratch_reuse", **_prototype()),
        text(
            *("kv_cache_event_hash_algo", "auto"),
            *("auto", "v1_block_key", "v2_sha256", "v2_sha256_64"),
            **_prototype(),
        ),
        real("max_util_for_resume", 0.95, **{"above": 0, "most": 1, **_prototype("1.3")}),
        flag("enable_kv_pool_rebalance", **_prototype()),
        whole("kv_pool_rebalance_min_sampled_kv_caches", 2000, least=0, **_prototype()),
        real("kv_pool_rebalance_cooldown_secs", 120.0, least=0, **_prototype()),
        whole("kv_pool_rebalance_target_ratio_update_interval", 100, above=0, **_prototype()),
        real("kv_pool_rebalance_ratio_threshold", 1.25, above=1, **_prototype()),
        real(
            "kv_pool_rebalance_moving_average_decay",
            0.9999,
            **{"above": 0, "below": 1, **_prototype()},
        ),
        whole("kv_pool_rebalance_check_interval", 10, above=0, **_prototype()),
        whole("disk_prefetch_num_reqs", 0, least=0, since="1.4"),
        whole("fp8_context_mla_kv_len_cap", **_prototype()),
        value("pool_ratio", Kind.REALS, **{"above": 0, **_prototype()}),
        whole("avg_seq_len", least=1, **_prototype()),
        group("block_reuse_config", BLOCK_REUSE, null=False, **_prototype()),
    )
)

_GRAPHS = (
    value("batch_sizes", Kind.WHOLES, least=1),
    whole("max_batch_size", 0, least=0),
    flag("enable_padding"),
)
_ENCODER_GRAPHS = table(
    value("num_tokens", Kind.WHOLES, least=1, since="1.4"),
    whole("max_num_token", 0, least=0, since="1.4"),
    value("seq_lens", Kind.WHOLES, least=1, since="1.4"),
    whole("max_seq_len", 0, least=0, since="1.4"),
)
CUDA_GRAPH = Object(
    settings=table(*_GRAPHS, text("mode", "decode", "decode", "encode", since="1.4")),
    key="mode",
    variants={"decode": {}, "encode": _ENCODER_GRAPHS},
    default="decode",
)
ENCODER_CUDA_GRAPH = Object(
    settings={**table(*_GRAPHS, text("mode", "encode", "encode")), **_ENCODER_GRAPHS}
)

SCHEDULER = Object(
    settings=table(
        text(
            *("capacity_scheduler_policy", "GUARANTEED_NO_EVICT"),
            *("GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"),
        ),
        text(
            *("context_chunking_policy", None),
            *("FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS", "FORCE_CHUNK"),
        ),
        group(
            "dynamic_batch_config",
            Object(
                settings=table(
                    flag("enable_batch_size_tuning", True),
                    flag("enable_max_num_tokens_tuning"),
                    whole("dynamic_batch_moving_average_window", 128),
                )
            ),
        ),
        text("waiting_queue_policy", "fcfs", "fcfs", "priority", since="1.3"),
        flag("use_python_scheduler", since="1.3"),
        flag("enable_prefix_aware_scheduling", True, since="1.4"),
    )
)

MOE = Object(
    settings=table(
        text(
            *("backend", "AUTO", "AUTO", "CUTLASS", "CUTEDSL", "TRTLLM", "DEEPGEMM", "DENSEGEMM"),
            *("VANILLA", "TRITON", "MARLIN", "MEGAMOE_DEEPGEMM", "MEGAMOE_CUTEDSL"),
        ),
        whole("max_num_tokens"),
        value("load_balancer", Kind.ANY),
        flag("disable_finalize_fusion"),
        flag("use_low_precision_moe_combine"),
    )
)

ATTENTION_DP = Object(
    settings=table(
        flag("enable_balance"),
        whole("timeout_iters", 50),
        whole("batching_wait_iters", 10),
        flag("enable_kv_cache_aware_routing", since="1.3"),
        real("kv_cache_routing_load_balance_weight", 1.0, since="1.3"),
        real("kv_cache_routing_match_rate_threshold", 0.1, since="1.3"),
        real("kv_cache_routing_fair_share_multiplier", 2.0, since="1.3"),
        flag("kv_cache_routing_cold_start_warmup", since="1.3"),
        flag("kv_cache_routing_account_for_in_transfer", since="1.4"),
        flag("kv_cache_routing_conversation_affinity", since="1.4"),
        whole("kv_cache_routing_max_sessions", 65536, since="1.4"),
        text(
            *("kv_cache_routing_new_conv_placement", "round_robin"),
            *("round_robin", "least_queued"),
            since="1.4",
        ),
    )
)

CONTEXT_PARALLEL = Object(
    settings=table(
        text("cp_type", "ULYSSES", "ULYSSES", "RING", "HELIX"),
        whole("tokens_per_block"),
        flag("use_nccl_for_alltoall", None),
        whole("fifo_version"),
    )
)

LORA = Object(
    settings=table(
        value("lora_dir", Kind.TEXTS, []),
        text("lora_ckpt_source", "hf", "hf", "nemo"),
        whole("max_lora_rank", 64, least=1),
        value("lora_target_modules", Kind.TEXTS, []),
        value("trtllm_modules_to_hf_modules", Kind.WORDS, {}),
        whole("max_loras"),
        whole("max_cpu_loras"),
        flag("swap_gate_up_proj_lora_b_weight", True),
        flag("overlap_lora_and_base", since="1.4"),
        flag("cuda_graph_specialize_lora", since="1.4"),
    )
)

PEFT_CACHE = Object(
    settings=table(
        whole("num_host_module_layer", 0),
        whole("num_device_module_layer", 0),
        whole("optimal_adapter_size", 8),
        whole("max_adapter_size", 64),
        whole("num_put_workers", 1),
        whole("num_ensure_workers", 1),
        whole("num_copy_streams", 1),
        whole("max_pages_per_block_host", 24),
        whole("max_pages_per_block_device", 8),
        real("device_cache_percent", 0.02),
        whole("host_cache_size", 1024**3),
        text("lora_prefetch_dir"),
    )
)

CACHE_TRANSCEIVER = Object(
    settings=table(
        text("backend", None, "DEFAULT", "UCX", "NIXL", "MOONCAKE", "MPI"),
        text(
            *("transceiver_runtime", "auto", "CPP", "PYTHON", "auto"),
            null=True,
            since="1.3",
        ),
        whole("max_tokens_in_buffer"),
        whole("kv_transfer_timeout_ms", 60_000, null=True, above=0),
        whole("kv_transfer_sender_future_timeout_ms", 1000, null=True, above=0, since="1.3"),
        whole("kv_transfer_poll_interval_ms", 5000, null=True, above=0, since="1.4"),
        whole("kv_cache_bounce_size_mb", 0, least=0, since="1.4"),
        flag("enable_pipelined_transfer", since="1.4"),
    )
)

_LONG = (whole("seq_len_threshold", above=0, since="1.3"),)
_DEEPSEEK = (
    whole("index_n_heads"),
    whole("index_head_dim"),
    whole("index_topk"),
    whole("indexer_max_chunk_size"),
    flag("skip_indexer_for_short_seqs", True, since="1.3"),
    flag("use_cute_dsl_topk", since="1.4"),
    flag("use_cute_dsl_paged_mqa_logits", since="1.4"),
    whole("q_split_threshold", 8192, since="1.4"),
    flag("indexer_rope_interleave", since="1.4"),
    flag("enable_heuristic_topk", since="1.4"),
    flag("use_self_sampling_topk", True, since="1.4"),
    flag("use_gvr_emission", since="1.4"),
    text("indexer_k_dtype", "fp8", "fp8", "fp4", since="1.4"),
    flag("index_share_for_mtp_iteration", None, **_prototype()),
)


def _algorithm(since: str) -> Setting:
    return text("algorithm", required=True, since=since)


SPARSE_ATTENTION = Object(
    settings=table(_algorithm("1.2")),
    key="algorithm",
    variants={
        "qsa": table(_algorithm("1.4"), *_LONG),
        "rocket": table(
            *_LONG,
            whole("window_size", 32, null=True),
            whole("kernel_size", 63, null=True),
            real("topr", 128, null=True),
            whole("topk", 64, null=True),
            whole("prompt_budget", 2048, null=True),
            whole("page_size", 4, null=True),
            text("kt_cache_dtype", "float8_e5m2", "bfloat16", "float8_e5m2", null=True),
        ),
        "dsa": table(*_LONG, *_DEEPSEEK),
        "deepseek_v4": table(
            _algorithm("1.4"),
            *_LONG,
            *_DEEPSEEK,
            value("compress_ratios", Kind.WHOLES, [1, 1, 4, 128, 4, 128, 4], least=0),
            whole("window_size", 128),
        ),
        "skip_softmax": table(
            _algorithm("1.3"),
            value("threshold_scale_factor", Kind.ANY),
            value("target_sparsity", Kind.ANY),
        ),
        "minimax_m3": table(
            _algorithm("1.4"),
            whole("sparse_num_index_heads", 4, above=0),
            whole("sparse_index_dim", 128, above=0),
            whole("sparse_block_size", 128),
            whole("sparse_topk_blocks", 16),
            whole("sparse_init_blocks", 0),
            whole("sparse_local_blocks", 1),
            text("sparse_score_type", "max", "max"),
            flag("sparse_disable_index_value", True),
            text("indexer_kv_dtype", "bf16", "bf16", "fp8", status=PROTOTYPE),
            whole("num_attention_heads"),
            whole("num_key_value_heads"),
            text("implementation", "triton", "triton", "msa", status=PROTOTYPE),
        ),
    },
)

KV_COMPRESSION = Object(
    settings=table(text("algorithm", required=True)),
    key="algorithm",
    variants={
        "quantization_for_cold_page": table(
            text("quant", "nvfp4", "nvfp4"), text("scale_checkpoint_path")
        ),
        "triattention": table(
            text("eviction_mode", "union", "union", "per_head", "per_layer_perhead"),
            flag("normalize_scores", True),
            whole("budget", 2048, above=0),
            whole("beta", 128, above=0),
            text("calibration_path", required=True),
        ),
    },
)

TORCH_COMPILE = Object(
    settings=table(
        flag("enable_fullgraph", True),
        flag("enable_inductor"),
        flag("enable_piecewise_cuda_graph", status=DEPRECATED),
        value("capture_num_tokens", Kind.WHOLES, above=0, status=DEPRECATED),
        flag("enable_userbuffers", True),
        whole("max_num_streams", 3, least=1),
    )
)

_SECONDS = (
    "e2e_request_latency_buckets",
    "time_to_first_token_buckets",
    "time_per_output_token_buckets",
    "request_queue_time_buckets",
    "request_prefill_time_buckets",
    "request_decode_time_buckets",
    "request_inference_time_buckets",
)
PROMETHEUS = Object(
    settings=table(*(value(name, Kind.REALS, status=PROTOTYPE) for name in _SECONDS))
)

MULTIMODAL = Object(
    settings=table(
        value("encoder_cuda_graph", Kind.MAP, status=PROTOTYPE),
        whole("encoder_side_stream_max_ahead", 0, least=0, status=PROTOTYPE),
        whole("encoder_cache_max_bytes", 134_217_728, least=0, status=PROTOTYPE),
        text(
            *("encoder_scheduling_policy", "DEFAULT", "DISABLED", "DEFAULT", "EAGER"),
            status=PROTOTYPE,
        ),
        real("video_pruning_rate", least=0, below=1, status=PROTOTYPE),
    )
)

NVFP4_GEMM = Object(
    settings=table(
        value(
            *("allowed_backends", Kind.TEXTS, ["cutlass", "cublaslt", "cuda_core"]),
            choices=("cutlass", "cublaslt", "cutedsl", "cuda_core", "marlin"),
        )
    )
)

DWDP = Object(
    settings=table(
        whole("dwdp_size", 1),
        whole("num_groups", 1),
        whole("num_experts_per_worker", 0),
        whole("num_prefetch_experts", 0),
        flag("contention_opt"),
    )
)

KV_CONNECTOR = Object(
    settings=table(
        text("connector", None, "lmcache", "lmcache-mp", "kvbm", since="1.3"),
        text("connector_module"),
        text("connector_scheduler_class"),
        text("connector_worker_class"),
        text("server_url", since="1.3"),
    )
)

MODEL_EXPRESS = Object(
    settings=table(
        text("server_url"),
        whole("server_query_timeout_s", least=0, status=DEPRECATED),
        text("preshard_strategy", "per_module", "per_module"),
    )
)

MEMORY_SERVICE = Object(
    settings=table(
        text("socket_path"), text("mode", "auto", "auto", "rw", "ro"), text("tag", "weights")
    )
)

LAYERWISE = Object(
    settings=table(
        text("calibration_mode", "NONE", "NONE", "MARK", "COLLECT"),
        text("calibration_file_path"),
        value("calibration_layer_indices", Kind.WHOLES),
    )
)

RAY_PLACEMENT = Object(
    settings=table(
        flag("defer_workers_init"),
        value("placement_groups", Kind.PYTHON),
        value("placement_bundle_indices", Kind.LISTS),
        real("per_worker_gpu_share", above=0, most=1),
    )
)

REORDER = Object(
    settings=table(
        text("policy_name", None, "AgentTree"),
        group(
            "policy_args",
            Object(
                settings=table(
                    real("agent_percentage", 0.0),
                    value("agent_types", Kind.TEXTS),
                    whole("agent_inflight_seq_num", 2**31 - 1),
                )
            ),
            null=False,
        ),
    )
)

SLEEP = Object(settings=table(value("restore_modes", Kind.WORDS, {})))

TELEMETRY = Object(
    settings=table(
        flag("disabled"),
        text(
            *("usage_context", "unknown"),
            *("unknown", "llm_class", "cli_serve", "cli_bench", "cli_eval", "disaggregated"),
        ),
    )
)

TRITON = Object(
    settings=table(
        whole("max_batch_size", 0, least=0, most=0),
        flag("decoupled", True),
        whole("cancellation_check_period_ms", 100, least=1),
    )
)
"""Not the LLM API's: what the Triton model keeps for itself. It serves no batches yet."""
