"""Promise: settings that contradict one another are refused, each by a rule with its source."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import LimitError
from builder.targets.llmapi.checked import checked
from builder.targets.llmapi.rules import RULES, check
from builder.targets.llmapi.settings import MODEL_YAML

EAGLE = {"decoding_type": "Eagle3", "max_draft_len": 3, "speculative_model": "draft"}
NGRAM = {"decoding_type": "NGram", "max_draft_len": 4}
SUFFIX = {"decoding_type": "SA", "max_draft_len": 4}


def speculative(**settings: Any) -> dict[str, Any]:
    return {"speculative_config": settings}


def cache(**settings: Any) -> dict[str, Any]:
    return {"kv_cache_config": settings}


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "the experts' ranks",
        {"tensor_parallel_size": 4, "moe_expert_parallel_size": 3},
        {"tensor_parallel_size": 4, "moe_expert_parallel_size": 2},
    ),
    (
        "the experts' ranks",
        {
            "tensor_parallel_size": 8,
            "moe_expert_parallel_size": 2,
            "moe_tensor_parallel_size": 2,
        },
        {
            "tensor_parallel_size": 8,
            "moe_expert_parallel_size": 2,
            "moe_tensor_parallel_size": 4,
        },
    ),
    (
        "pp_partition",
        {"pipeline_parallel_size": 2, "pp_partition": [32]},
        {"pipeline_parallel_size": 2, "pp_partition": [15, 17]},
    ),
    (
        "max_batch_size can't be more",
        {"max_batch_size": 65, "max_num_tokens": 64},
        {"max_batch_size": 64, "max_num_tokens": 64},
    ),
    ("max_batch_size can't be more", {"max_batch_size": 8193}, {"max_batch_size": 8192}),
    (
        "the largest of its batch_sizes",
        {"cuda_graph_config": {"batch_sizes": [1, 8], "max_batch_size": 16}},
        {"cuda_graph_config": {"batch_sizes": [1, 8], "max_batch_size": 8}},
    ),
    ("needs its tokenizer", {"skip_tokenizer_init": True}, {"skip_tokenizer_init": False}),
    ("max_draft_len of at least 1", speculative(decoding_type="NGram"), speculative(**NGRAM)),
    (
        "max_draft_len of at least 1",
        speculative(decoding_type="MTP", max_draft_len=0),
        speculative(decoding_type="MTP"),
    ),
    (
        "needs a draft model",
        speculative(decoding_type="Draft_Target", max_draft_len=4),
        speculative(**EAGLE),
    ),
    (
        "exclude each other",
        speculative(**NGRAM, max_concurrency=8, draft_len_schedule={1: 4}),
        speculative(**NGRAM, max_concurrency=8),
    ),
    (
        "must begin with max_draft_len",
        speculative(**NGRAM, draft_len_schedule={4: 2, 8: 1}),
        speculative(**NGRAM, draft_len_schedule={4: 4, 8: 1}),
    ),
    (
        "must begin with max_draft_len",
        speculative(**NGRAM, draft_len_schedule={0: 4}),
        speculative(**NGRAM, draft_len_schedule={1: 4}),
    ),
    (
        "a dynamic tree needs",
        speculative(**EAGLE, use_dynamic_tree=True),
        speculative(**EAGLE, use_dynamic_tree=True, dynamic_tree_max_topK=4),
    ),
    (
        "a dynamic tree needs",
        speculative(
            **EAGLE, use_dynamic_tree=True, dynamic_tree_max_topK=4, max_total_draft_tokens=13
        ),
        speculative(
            **EAGLE, use_dynamic_tree=True, dynamic_tree_max_topK=4, max_total_draft_tokens=12
        ),
    ),
    (
        "the suffix automaton",
        speculative(**SUFFIX, max_matching_ngram_size=0),
        speculative(**SUFFIX, max_matching_ngram_size=3),
    ),
    (
        "the suffix automaton",
        speculative(**SUFFIX, global_pool_size=4096),
        speculative(**SUFFIX, global_pool_size=4096, enable_global_pool=True),
    ),
    (
        "the suffix automaton",
        speculative(**SUFFIX, global_pool_size=64, enable_global_pool=True),
        {
            "max_batch_size": 64,
            **speculative(**SUFFIX, global_pool_size=64, enable_global_pool=True),
        },
    ),
    (
        "use_rejection_sampling",
        speculative(**NGRAM, use_rejection_sampling=True),
        speculative(**EAGLE, use_rejection_sampling=True),
    ),
    (
        "DSpark's block_size",
        speculative(decoding_type="DSpark", max_draft_len=4, block_size=5),
        speculative(decoding_type="DSpark", max_draft_len=4, block_size=4),
    ),
    ("a disk cache", cache(disk_cache_size=1), cache(disk_cache_size=1, disk_cache_path="/x")),
    ("add up to 1", cache(pool_ratio=[0.5, 0.4]), cache(pool_ratio=[0.6, 0.4])),
    (
        "second KV cache manager",
        cache(use_kv_cache_manager_v2=False, mamba_state_config={"enable_branch_snapshot": True}),
        cache(mamba_state_config={"enable_branch_snapshot": True}),
    ),
    (
        "can't be rebalanced",
        cache(dtype="fp8_ds_mla", enable_kv_pool_rebalance=True),
        cache(dtype="fp8", enable_kv_pool_rebalance=True),
    ),
    (
        "the same tokens_per_block",
        {
            "context_parallel_size": 2,
            "cp_config": {"cp_type": "HELIX", "tokens_per_block": 64},
        },
        {
            "context_parallel_size": 2,
            "cp_config": {"cp_type": "HELIX", "tokens_per_block": 32},
        },
    ),
    (
        "a KV cache connector",
        {"kv_connector_config": {"connector_module": "m"}},
        {"kv_connector_config": {"connector": "lmcache"}},
    ),
    (
        "doesn't tune batches",
        {"scheduler_config": {"dynamic_batch_config": {"enable_batch_size_tuning": True}}},
        {"scheduler_config": {}},
    ),
    (
        "LoRA's own CUDA graphs",
        {"enable_attention_dp": True, "lora_config": {"cuda_graph_specialize_lora": True}},
        {"enable_attention_dp": False, "lora_config": {"cuda_graph_specialize_lora": True}},
    ),
    ("can't be prefetched", {"peft_cache_config": {"lora_prefetch_dir": "x"}}, {}),
    (
        "statistics of requests",
        {"enable_iter_req_stats": True},
        {"enable_iter_req_stats": True, "enable_iter_perf_stats": True},
    ),
    (
        "buckets must rise",
        {"prometheus_metrics_config": {"time_to_first_token_buckets": [0.1, 0.1]}},
        {"prometheus_metrics_config": {"time_to_first_token_buckets": [0.1, 0.2]}},
    ),
    (
        "skip-correction",
        {"enable_mla_skip_correction": True, "attn_backend": "FLASHINFER"},
        {"enable_mla_skip_correction": True},
    ),
    (
        "graphs for prefill",
        {"prefill_cuda_graph_backend": "breakable", "enable_lora": True},
        {"prefill_cuda_graph_backend": "piecewise", "enable_lora": True},
    ),
    (
        "graphs for prefill",
        {"prefill_cuda_graph_backend": "piecewise", "encode_only": True},
        {"prefill_cuda_graph_backend": "disabled", "encode_only": True},
    ),
    (
        "graphs of an encoder need",
        {"encoder_cuda_graph_config": {"max_batch_size": 8}},
        {"encoder_cuda_graph_config": {"max_batch_size": 8}, "encoder_max_batch_size": 8},
    ),
    (
        "graphs of an encoder of its own",
        {
            "encode_only": True,
            "encoder_cuda_graph_config": {"max_batch_size": 8},
            "encoder_max_batch_size": 8,
        },
        {"encode_only": True},
    ),
    (
        "encode_only and mm_encoder_only",
        {"encode_only": True, "mm_encoder_only": True},
        {"mm_encoder_only": True},
    ),
    (
        "the encoder can't be left out",
        {"disable_mm_encoder": True, "mm_encoder_only": True},
        {"disable_mm_encoder": True},
    ),
    (
        "encoder graphs exclude",
        {
            "multimodal_config": {
                "encoder_cuda_graph": {"image": {"buckets": [[64, 1]]}},
                "encoder_side_stream_max_ahead": 2,
            }
        },
        {"multimodal_config": {"encoder_side_stream_max_ahead": 2}},
    ),
    (
        "speculative beam history",
        {"enable_speculative_beam_history_d2h": True, "sampler_force_async_worker": True},
        {"enable_speculative_beam_history_d2h": True},
    ),
    (
        "GPU Memory Service",
        {"load_format": "gms", "moe_config": {"load_balancer": "f.yaml"}},
        {"load_format": "auto", "moe_config": {"load_balancer": "f.yaml"}},
    ),
    (
        "orchestrator_type ray",
        {"ray_worker_extension_cls": "m.C"},
        {"ray_worker_extension_cls": "m.C", "orchestrator_type": "ray"},
    ),
    (
        "collecting layer by layer",
        {"layer_wise_benchmarks_config": {"calibration_mode": "COLLECT"}},
        {"layer_wise_benchmarks_config": {"calibration_mode": "MARK"}},
    ),
]
"""A part of the rule's words, settings that break it, and the same put right."""


def settings(values: dict[str, Any]) -> dict[str, Any]:
    return checked(MODEL_YAML, {"model": "m", **values})


@pytest.mark.parametrize(("said", "broken", "right"), CASES, ids=lambda case: str(case)[:30])
def test_a_rule_refuses_what_breaks_it_and_nothing_more(
    said: str, broken: dict[str, Any], right: dict[str, Any]
) -> None:
    with pytest.raises(LimitError) as error:
        check(settings(broken))
    assert said in str(error.value)
    check(settings(right))


def test_every_rule_has_a_case_and_a_source() -> None:
    for rule in RULES:
        assert any(said in rule.what for said, _, _ in CASES), rule.what
        assert rule.source
