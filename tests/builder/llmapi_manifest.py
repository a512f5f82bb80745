"""The settings that TensorRT-LLM itself lists, to hold our table against.

Source: `tensorrt_llm/usage/llm_args_golden_manifest.json` of autumn 2026, which upstream's CI holds
against its own classes: every setting that is a number, a flag or one of several words, with the
words. Settings that are free texts, paths or maps aren't in it.
"""

from __future__ import annotations

from collections.abc import Iterator

_NAMES = {
    "": """
        context_parallel_size batch_wait_max_tokens_ratio batch_wait_timeout_iters
        batch_wait_timeout_ms disable_mm_encoder disable_overlap_scheduler enable_attention_dp
        enable_autotuner enable_chunked_prefill enable_early_first_token_response
        enable_encoder_decoder_mixed_cuda_graph enable_energy_metrics enable_in_graph_sampling
        enable_iter_perf_stats enable_iter_req_stats enable_layerwise_nvtx_marker
        enable_lm_head_tp_in_adp enable_lora enable_low_latency_host_dispatch enable_min_latency
        enable_mla_skip_correction enable_resource_governor enable_speculative_beam_history_d2h
        encode_only encoder_max_batch_size encoder_max_num_tokens force_dynamic_quantization
        garbage_collection_gen0_threshold gather_generation_logits gpus_per_node
        iter_stats_max_iterations max_batch_size max_beam_width max_input_len max_num_tokens
        max_seq_len max_stats_len mla_skip_correction_threshold mm_encoder_only
        moe_cluster_parallel_size moe_expert_parallel_size moe_tensor_parallel_size
        num_postprocess_workers num_serve_frontends perf_metrics_max_requests
        pipeline_parallel_size pp_partition prefill_capture_num_tokens print_iter_log
        request_stats_max_iterations return_perf_metrics sampler_force_async_worker
        skip_tokenizer_init stream_interval tensor_parallel_size trust_remote_code
        use_cute_dsl_bf16_bmm use_cute_dsl_bf16_gemm use_cute_dsl_blockscaling_bmm
        use_cute_dsl_blockscaling_mm use_fine_grained_sync
    """,
    "attention_dp_config": """
        batching_wait_iters enable_balance enable_kv_cache_aware_routing
        kv_cache_routing_account_for_in_transfer kv_cache_routing_cold_start_warmup
        kv_cache_routing_conversation_affinity kv_cache_routing_fair_share_multiplier
        kv_cache_routing_load_balance_weight kv_cache_routing_match_rate_threshold
        kv_cache_routing_max_sessions timeout_iters
    """,
    "cache_transceiver_config": """
        enable_pipelined_transfer kv_cache_bounce_size_mb kv_transfer_poll_interval_ms
        kv_transfer_sender_future_timeout_ms kv_transfer_timeout_ms max_tokens_in_buffer
    """,
    "cp_config": "fifo_version tokens_per_block use_nccl_for_alltoall",
    "cuda_graph_config": """
        batch_sizes enable_padding max_batch_size max_num_token max_seq_len num_tokens seq_lens
    """,
    "encoder_cuda_graph_config": """
        batch_sizes enable_padding max_batch_size max_num_token max_seq_len num_tokens seq_lens
    """,
    "dwdp_config": """
        contention_opt dwdp_size num_experts_per_worker num_groups num_prefetch_experts
    """,
    "kv_cache_compression_config": "beta budget normalize_scores",
    "kv_cache_config": """
        attention_dp_events_gather_period_ms avg_seq_len copy_on_partial_reuse
        cross_kv_cache_fraction disk_cache_size disk_prefetch_num_reqs enable_block_reuse
        enable_kv_pool_rebalance enable_partial_reuse enable_swa_scratch_reuse
        event_buffer_max_size fp8_context_mla_kv_len_cap free_gpu_memory_fraction host_cache_size
        iteration_stats_interval kv_pool_rebalance_check_interval kv_pool_rebalance_cooldown_secs
        kv_pool_rebalance_min_sampled_kv_caches kv_pool_rebalance_moving_average_decay
        kv_pool_rebalance_ratio_threshold kv_pool_rebalance_target_ratio_update_interval
        mamba_ssm_philox_rounds mamba_ssm_stochastic_rounding max_attention_window
        max_gpu_total_bytes max_tokens max_util_for_resume pool_ratio
        secondary_offload_min_priority sink_token_length tokens_per_block use_kv_cache_manager_v2
        use_uvm
    """,
    "kv_cache_config.block_reuse_config": "max_num_turns",
    "kv_cache_config.kv_events_config": """
        buffer_steps enable_kv_cache_events hwm max_queue_size
    """,
    "kv_cache_config.mamba_state_config": "enable_branch_snapshot periodic_snapshot_interval",
    "layer_wise_benchmarks_config": "calibration_layer_indices",
    "lora_config": """
        cuda_graph_specialize_lora max_cpu_loras max_lora_rank max_loras overlap_lora_and_base
        swap_gate_up_proj_lora_b_weight
    """,
    "moe_config": "disable_finalize_fusion max_num_tokens use_low_precision_moe_combine",
    "multimodal_config": """
        encoder_cache_max_bytes encoder_side_stream_max_ahead video_pruning_rate
    """,
    "mx_config": "server_query_timeout_s",
    "peft_cache_config": """
        device_cache_percent host_cache_size max_adapter_size max_pages_per_block_device
        max_pages_per_block_host num_copy_streams num_device_module_layer num_ensure_workers
        num_host_module_layer num_put_workers optimal_adapter_size
    """,
    "prometheus_metrics_config": """
        e2e_request_latency_buckets request_decode_time_buckets request_inference_time_buckets
        request_prefill_time_buckets request_queue_time_buckets time_per_output_token_buckets
        time_to_first_token_buckets
    """,
    "ray_placement_config": "defer_workers_init per_worker_gpu_share placement_bundle_indices",
    "reorder_policy_config.policy_args": "agent_inflight_seq_num agent_percentage",
    "scheduler_config": "enable_prefix_aware_scheduling use_python_scheduler",
    "scheduler_config.dynamic_batch_config": """
        dynamic_batch_moving_average_window enable_batch_size_tuning enable_max_num_tokens_tuning
    """,
    "sparse_attention_config": """
        compress_ratios enable_heuristic_topk index_head_dim index_n_heads
        index_share_for_mtp_iteration index_topk indexer_max_chunk_size indexer_rope_interleave
        kernel_size num_attention_heads num_key_value_heads page_size prompt_budget
        q_split_threshold seq_len_threshold skip_indexer_for_short_seqs sparse_block_size
        sparse_disable_index_value sparse_index_dim sparse_init_blocks sparse_local_blocks
        sparse_num_index_heads sparse_topk_blocks topk topr use_cute_dsl_paged_mqa_logits
        use_cute_dsl_topk use_gvr_emission use_self_sampling_topk window_size
    """,
    "speculative_config": """
        acceptance_rate_threshold acceptance_rate_window_size allow_advanced_sampling
        begin_thinking_phase_token block_size dynamic_tree_max_topK eagle3_layers_to_capture
        eagle3_one_model eagle_choices enable_global_pool enable_penalty end_thinking_phase_token
        global_pool_size greedy_sampling is_keep_all is_public_pool is_use_oldest markov_rank
        mask_token_id max_concurrency max_draft_len max_matching_ngram_size
        max_non_leaves_per_layer max_total_draft_tokens mtp_eagle_one_model num_eagle_layers
        posterior_threshold relaxed_delta relaxed_topk target_layer_ids use_dynamic_tree
        use_mtp_vanilla use_rejection_sampling use_relaxed_acceptance_for_thinking write_interval
    """,
    "speculative_config.sa_config": "enable_global_pool threshold",
    "telemetry_config": "disabled",
    "torch_compile_config": """
        capture_num_tokens enable_fullgraph enable_inductor enable_piecewise_cuda_graph
        enable_userbuffers max_num_streams
    """,
}

WORDS = {
    "allreduce_strategy": (
        "AUTO NCCL UB MINLATENCY ONESHOT TWOSHOT LOWPRECISION MNNVL NCCL_SYMMETRIC"
    ),
    "attention_dp_config.kv_cache_routing_new_conv_placement": "round_robin least_queued",
    "attn_backend": "VANILLA TRTLLM FLASHINFER",
    "backend": "pytorch",
    "cache_transceiver_config.backend": "DEFAULT UCX NIXL MOONCAKE MPI",
    "cache_transceiver_config.transceiver_runtime": "CPP PYTHON auto",
    "checkpoint_io_policy": "auto native rank_striped_read_ahead",
    "cp_config.cp_type": "ULYSSES RING HELIX",
    "cuda_graph_config.mode": "decode encode",
    "dtype": "auto float16 bfloat16 float32",
    "encoder_cuda_graph_config.mode": "encode",
    "generation_config": "auto trtllm",
    "gms_config.mode": "auto rw ro",
    "guided_decoding_backend": "xgrammar llguidance",
    "kv_cache_compression_config.eviction_mode": "union per_head per_layer_perhead",
    "kv_cache_compression_config.quant": "nvfp4",
    "kv_cache_config.block_reuse_config.policy": "all_reusable per_request per_conversation",
    "kv_cache_config.dtype": "auto float16 bfloat16 float32 fp8 fp8_ds_mla nvfp4",
    "kv_cache_config.kv_cache_event_hash_algo": "auto v1_block_key v2_sha256 v2_sha256_64",
    "kv_cache_config.kv_events_config.publisher": "null zmq",
    "kv_cache_config.mamba_ssm_cache_dtype": "auto float16 bfloat16 float32",
    "kv_connector_config.connector": "lmcache lmcache-mp kvbm",
    "layer_wise_benchmarks_config.calibration_mode": "NONE MARK COLLECT",
    "load_format": "auto dummy vision_only gms",
    "lora_config.lora_ckpt_source": "hf nemo",
    "moe_config.backend": (
        "AUTO CUTLASS CUTEDSL TRTLLM DEEPGEMM DENSEGEMM VANILLA TRITON MARLIN MEGAMOE_DEEPGEMM "
        "MEGAMOE_CUTEDSL"
    ),
    "multimodal_config.encoder_scheduling_policy": "DISABLED DEFAULT EAGER",
    "mx_config.preshard_strategy": "per_module",
    "nvfp4_gemm_config.allowed_backends": "cutlass cublaslt cutedsl cuda_core marlin",
    "orchestrator_type": "rpc ray",
    "prefill_cuda_graph_backend": "disabled piecewise breakable",
    "reorder_policy_config.policy_name": "AgentTree",
    "scheduler_config.capacity_scheduler_policy": (
        "MAX_UTILIZATION GUARANTEED_NO_EVICT STATIC_BATCH"
    ),
    "scheduler_config.context_chunking_policy": (
        "FIRST_COME_FIRST_SERVED EQUAL_PROGRESS FORCE_CHUNK"
    ),
    "scheduler_config.waiting_queue_policy": "fcfs priority",
    "sparse_attention_config.implementation": "triton msa",
    "sparse_attention_config.indexer_k_dtype": "fp8 fp4",
    "sparse_attention_config.indexer_kv_dtype": "bf16 fp8",
    "sparse_attention_config.kt_cache_dtype": "bfloat16 float8_e5m2",
    "sparse_attention_config.sparse_score_type": "max",
    "speculative_config.advanced_sampling_mode": "full no_topk no_topp no_topk_no_topp",
    "speculative_config.attention_backend": "VANILLA TRTLLM",
    "speculative_config.eagle3_model_arch": "llama3 mistral_large3",
    "speculative_config.markov_head_type": "vanilla gated rnn",
    "telemetry_config.usage_context": (
        "unknown llm_class cli_serve cli_bench cli_eval disaggregated"
    ),
    "tokenizer_mode": "auto slow",
}
"""Setting → the words that it takes."""

VARIANTS = {
    "speculative_config": (
        "AUTO DFlash DSpark Draft_Target Eagle3 Eagle MTP NGram PARD SA SaveState User_Provided"
    ),
    "sparse_attention_config": "dsa deepseek_v4 minimax_m3 qsa rocket skip_softmax",
    "kv_cache_compression_config": "quantization_for_cold_page triattention",
    "cuda_graph_config": "decode encode",
}
"""Object → the values of its key."""


def numbers_and_flags() -> Iterator[str]:
    """The dotted names of the settings that are numbers, flags or lists of numbers."""
    for outer, names in _NAMES.items():
        yield from (f"{outer}.{name}".lstrip(".") for name in names.split())
