"""Promise: parameters have upstream's meaning and defaults; nonsense is an error at load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ArtifactError, LimitError
from triton_repo.contract import contract
from triton_repo.executor.config import ExecutorConfig
from triton_repo.runtime.tensorrtllm_engine import _check, _executor_config
from triton_repo.runtime.tensorrtllm_parameters import QUIET, UNUSED, Parameters

READ = {
    "batch_scheduler_policy",
    "cancellation_check_period_ms",
    "decoding_mode",
    "enable_chunked_context",
    "enable_kv_cache_reuse",
    "encoder_model_path",
    "exclude_input_in_output",
    "gpt_model_path",
    "gpt_model_type",
    "guided_decoding_backend",
    "kv_cache_free_gpu_mem_fraction",
    "lora_cache_host_memory_bytes",
    "lora_cache_max_adapter_size",
    "lora_cache_optimal_adapter_size",
    "lora_prefetch_dir",
    "max_attention_window_size",
    "max_beam_width",
    "max_tokens_in_paged_kv_cache",
    "normalize_log_probs",
    "sink_token_length",
    "stats_check_period_ms",
    "tokenizer_dir",
}


def parameters(model: dict[str, Any] | None = None, **values: str) -> Parameters:
    given = {"gpt_model_path": "tensorrt_llm/1", **values}
    return Parameters.of(
        {
            "parameters": {name: {"string_value": value} for name, value in given.items()},
            **(model or {}),
        }
    )


def test_every_parameter_of_the_contract_is_read_or_named_as_unused() -> None:
    known = READ | set(UNUSED) | set(QUIET)
    assert set(contract("tensorrt_llm").parameters) <= known
    assert not READ & set(UNUSED)


def test_the_defaults_are_upstreams() -> None:
    found = parameters()
    assert found.guaranteed_no_evict
    assert found.enable_kv_cache_reuse
    assert found.normalize_log_probs
    assert not found.exclude_input_in_output
    assert not found.enable_chunked_context
    assert not found.guided_decoding
    assert not found.decoupled
    assert (found.cancellation_check_period_ms, found.stats_check_period_ms) == (100, 100)
    assert (found.max_beam_width, found.max_queue_size) == (1, 0)
    assert found.lora_cache_host_memory_bytes == 2**30
    assert found.unused == ()


def test_values_are_read() -> None:
    model = {
        "dynamic_batching": {"default_queue_policy": {"max_queue_size": 7}},
        "model_transaction_policy": {"decoupled": True},
    }
    found = parameters(
        model,
        batch_scheduler_policy="max_utilization",
        exclude_input_in_output="True",
        max_tokens_in_paged_kv_cache="640",
        kv_cache_free_gpu_mem_fraction="0.5",
        guided_decoding_backend="xgrammar",
        max_attention_window_size="4096, 512",
        normalize_log_probs="false",
    )
    assert not found.guaranteed_no_evict
    assert found.exclude_input_in_output
    assert found.max_tokens_in_paged_kv_cache == 640
    assert found.kv_cache_free_gpu_mem_fraction == 0.5
    assert found.guided_decoding
    assert found.max_attention_window_size == 512
    assert not found.normalize_log_probs
    assert (found.max_queue_size, found.decoupled) == (7, True)


def test_an_unfilled_template_is_unset() -> None:
    found = parameters(
        max_beam_width="${max_beam_width}", lora_prefetch_dir="", cuda_graph_mode=" "
    )
    assert found == parameters()


def test_what_means_nothing_on_a_cpu_is_named() -> None:
    found = parameters(cuda_graph_mode="true", gpu_device_ids="0,1", executor_worker_path="/opt/x")
    assert found.unused == ("gpu_device_ids", "cuda_graph_mode")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpt_model_path", ""),
        ("gpt_model_type", "V1"),
        ("batch_scheduler_policy", "fastest"),
        ("max_beam_width", "0"),
        ("max_beam_width", "two"),
        ("max_tokens_in_paged_kv_cache", "-5"),
        ("kv_cache_free_gpu_mem_fraction", "1.5"),
        ("kv_cache_free_gpu_mem_fraction", "nan"),
        ("enable_kv_cache_reuse", "maybe"),
        ("stats_check_period_ms", "0"),
        ("max_attention_window_size", "0"),
        ("sink_token_length", "4"),
        ("decoding_mode", "medusa"),
        ("decoding_mode", "best"),
        ("guided_decoding_backend", "outlines"),
        ("encoder_model_path", "/models/encoder"),
        ("lora_cache_host_memory_bytes", "1e9"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ArtifactError, match=f"parameter {name} must be"):
        parameters(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("max_beam_width", "2"), ("max_attention_window_size", "16")]
)
def test_what_the_engine_was_not_built_for_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(LimitError, match=name):
        _check(parameters(**{name: value}), {"max_beam_width": 1, "max_seq_len": 64})


def test_the_cache_has_the_smaller_of_tokens_and_share_of_memory(tiny_engine_dir: Path) -> None:
    config = json.loads((tiny_engine_dir / "config.json").read_text())
    planned = config["pretrained_config"]["runtime_defaults"]["kv_cache_config"]["max_tokens"]

    def tokens(**values: str) -> int:
        limits = ExecutorConfig.of(tiny_engine_dir)
        return _executor_config(
            tiny_engine_dir, parameters(**values), limits, config
        ).kv_cache_tokens

    assert tokens() == planned
    assert tokens(max_tokens_in_paged_kv_cache="64") == 64
    assert tokens(kv_cache_free_gpu_mem_fraction="0.9") == planned
    assert tokens(kv_cache_free_gpu_mem_fraction="0.0000001") < planned
