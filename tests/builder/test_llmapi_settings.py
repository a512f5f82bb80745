"""Promise: an LLM-API setting that is unknown, mistyped or out of range is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from llmapi_manifest import VARIANTS, WORDS, numbers_and_flags

from builder.errors import LimitError
from builder.targets.llmapi.checked import checked, merged
from builder.targets.llmapi.names import refuse_unknown, versions
from builder.targets.llmapi.setting import Kind, Object, names
from builder.targets.llmapi.settings import LLM, MODEL_YAML, REMOVED, RENAMED, VERSIONS
from builder.targets.llmapi.typed import nest

KNOWN = dict(names(MODEL_YAML))

PUBLISHED: dict[str, Any] = {
    "tensor_parallel_size": 1,
    "trust_remote_code": False,
    "max_batch_size": 2048,
    "max_num_tokens": 8192,
    "max_beam_width": 1,
    "max_seq_len": None,
    "enable_chunked_prefill": False,
    "guided_decoding_backend": None,
    "attn_backend": "TRTLLM",
    "disable_overlap_scheduler": False,
    "stream_interval": 1,
    "kv_cache_config.free_gpu_memory_fraction": 0.9,
    "kv_cache_config.enable_block_reuse": True,
    "kv_cache_config.enable_partial_reuse": True,
    "kv_cache_config.tokens_per_block": 32,
    "kv_cache_config.dtype": "auto",
    "cuda_graph_config.enable_padding": False,
    "scheduler_config.capacity_scheduler_policy": "GUARANTEED_NO_EVICT",
    "moe_config.backend": "AUTO",
    "lora_config.max_lora_rank": 64,
    "peft_cache_config.device_cache_percent": 0.02,
    "cache_transceiver_config.kv_transfer_timeout_ms": 60_000,
    "triton_config.cancellation_check_period_ms": 100,
}
"""Defaults that the LLM API's reference documentation names."""


def read(**pairs: str) -> dict[str, Any]:
    """What `--set` pairs say; `__` stands for a dot."""
    dotted = {name.replace("__", "."): typed for name, typed in pairs.items()}
    refuse_unknown(dotted)
    return checked(MODEL_YAML, merged({"model": "m"}, nest(dotted)))


def test_defaults_are_those_that_are_published() -> None:
    assert {name: KNOWN[name].default for name in PUBLISHED} == PUBLISHED


def test_every_setting_that_upstream_lists_is_known_with_its_kind() -> None:
    listed = list(numbers_and_flags())
    assert len(listed) > 250
    plain = (Kind.FLAG, Kind.WHOLE, Kind.REAL, Kind.WHOLES, Kind.REALS, Kind.LISTS)
    assert not [name for name in listed if name not in KNOWN]
    assert not [name for name in listed if KNOWN[name].kind not in plain]


def test_every_number_and_flag_is_one_that_upstream_lists() -> None:
    plain = (Kind.FLAG, Kind.WHOLE, Kind.REAL)
    ours = {
        name
        for name, setting in KNOWN.items()
        if setting.kind in plain and setting.until is None and not name.startswith("triton_config")
    }
    # deprecated, and left out of upstream's telemetry
    assert ours - set(numbers_and_flags()) == {"kv_cache_config.mamba_state_cache_interval"}


def test_words_and_variants_are_upstreams() -> None:
    assert {name: set(KNOWN[name].choices) for name in WORDS} == {
        name: set(words.split()) for name, words in WORDS.items()
    }
    for name, variants in VARIANTS.items():
        of = KNOWN[name].of
        assert of is not None
        assert of.variants is not None
        assert of.variants.keys() == set(variants.split()), name


def test_a_default_is_a_value_that_the_setting_takes() -> None:
    plain = {
        name: setting
        for name, setting in KNOWN.items()
        if setting.kind not in (Kind.PYTHON, Kind.OBJECT) and not setting.required
    }
    assert len(plain) > 300
    for name, setting in plain.items():
        alone = Object(settings={setting.name: setting})
        default = {setting.name: setting.default}
        assert checked(alone, default) == default, name


def test_versions_are_in_order() -> None:
    for name, setting in KNOWN.items():
        assert setting.since in VERSIONS, name
        assert setting.since < (setting.until or "9"), name


def test_what_was_renamed_is_found_and_what_is_gone_is_not() -> None:
    assert set(RENAMED.values()) <= set(KNOWN)
    assert not (set(RENAMED) | set(REMOVED)) & set(KNOWN)


def test_only_two_keys_are_not_the_llm_apis() -> None:
    assert MODEL_YAML.settings.keys() - LLM.settings.keys() == {
        "triton_config",
        "logits_post_processors",
    }


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("kv_cache_config.enable_block_reuse", "false", False),
        ("kv_cache_config.enable_block_reuse", "True", True),
        ("max_batch_size", "64", 64),
        ("max_batch_size", "null", None),
        ("kv_cache_config.free_gpu_memory_fraction", "0.85", 0.85),
        ("kv_cache_config.free_gpu_memory_fraction", ".5", 0.5),
        ("kv_cache_config.free_gpu_memory_fraction", "1", 1.0),
        ("kv_cache_config.max_attention_window", "4096,1024", [4096, 1024]),
        ("kv_cache_config.max_attention_window", "[4096, 1024]", [4096, 1024]),
        ("kv_cache_config.pool_ratio", "1", [1.0]),
        ("kv_cache_config.use_kv_cache_manager_v2", "auto", "auto"),
        ("kv_cache_config.use_kv_cache_manager_v2", "true", True),
        ("cuda_graph_config", "null", None),
        ("cuda_graph_config", '{"batch_sizes": [1, 2]}', {"batch_sizes": [1, 2]}),
        ("lora_config.lora_target_modules", "attn_q,attn_v", ["attn_q", "attn_v"]),
        ("model_kwargs.num_hidden_layers", "2", {"num_hidden_layers": 2}),
        ("env_overrides.OMP_NUM_THREADS", "2", {"OMP_NUM_THREADS": "2"}),
        ("moe_config.load_balancer", "eplb.yaml", "eplb.yaml"),
        ("moe_config.load_balancer", '{"num_slots": 288}', {"num_slots": 288}),
        ("revision", "12", "12"),
    ],
)
def test_what_is_typed_becomes_the_settings_kind(name: str, typed: str, value: Any) -> None:
    found: Any = read(**{name.replace(".", "__"): typed})
    outer = name.split(".")[:1] if name.startswith(("model_kwargs", "env_")) else name.split(".")
    for part in outer:
        found = found[part]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("max_batchsize", "8", "max_batch_size"),
        ("enable_block_reuse", "true", "kv_cache_config.enable_block_reuse"),
        ("kv_cache_config.free_gpu_mem_fraction", "0.5", "free_gpu_memory_fraction"),
        ("tp_size", "2", "set tensor_parallel_size"),
        ("kv_cache_free_gpu_mem_fraction", "0.5", "kv_cache_config.free_gpu_memory_fraction"),
        ("speculative_config.speculative_model_dir", "d", "speculative_config.speculative_model"),
        ("build_config.max_batch_size", "8", "nothing is built"),
        ("max_batch_size", "many", "a whole number"),
        ("max_batch_size", "1.5", "a whole number"),
        ("max_batch_size", "0", "at least 1"),
        ("max_batch_size", "2147483648", "at most 2147483647"),
        ("max_seq_len", "9" * 22, "at most 2147483647"),
        ("max_num_tokens", "9" * 5000, "at most 2147483647"),
        ("kv_cache_config.max_tokens", "9223372036854775808", "a whole number"),
        ("kv_cache_config.max_attention_window", "9223372036854775808", "whole numbers"),
        ("kv_cache_config", f'{{"free_gpu_memory_fraction": {"9" * 400}}}', "a number"),
        ("kv_cache_config.pool_ratio", f"[{'9' * 400}]", "a list of numbers"),
        ("speculative_config", '{"decoding_type": ["a"]}', "decoding_type must be one of"),
        ("moe_ep", "2", "set moe_expert_parallel_size"),
        ("enable_chunked_prefill", "yes", "true or false"),
        ("enable_chunked_prefill", "null", "can't be null"),
        ("kv_cache_config.free_gpu_memory_fraction", "1.01", "at least 0 and at most 1"),
        ("kv_cache_config.free_gpu_memory_fraction", "nan", "a number"),
        ("kv_cache_config.pool_ratio", "[NaN]", "a list of numbers"),
        ("kv_cache_config.max_attention_window", "4096,x", "a list of whole numbers"),
        ("kv_cache_config.dtype", "fp4", "did you mean nvfp4"),
        ("moe_config.backend", "cutlas", "one of AUTO"),
        ("nvfp4_gemm_config.allowed_backends", "cutlass,cublas", "'cublas'"),
        ("guided_decoding_backend", "outlines", "xgrammar, llguidance"),
        ("cuda_graph_config", "yes", "a map of settings"),
        ("cuda_graph_config", '{"batch_size": [1]}', "did you mean cuda_graph_config.batch_sizes"),
        ("speculative_config.max_draft_len", "4", "decoding_type must be one of"),
        ("speculative_config.decoding_type", "Medusa", "Eagle3"),
        ("sparse_attention_config.algorithm", "dsv", "did you mean dsa"),
        ("checkpoint_loader", "x", "Python object"),
        ("triton_config.max_batch_size", "8", "at most 0"),
        ("kv_cache_config", "null", "can't be null"),
        ("", "x", "no setting"),
        ("kv_cache_config.", "x", "no setting"),
    ],
)
def test_a_wrong_setting_is_refused_and_says_what_is_right(
    name: str, typed: str, said: str
) -> None:
    with pytest.raises(LimitError) as error:
        read(**{name.replace(".", "__"): typed})
    assert said in str(error.value)


def test_a_setting_of_another_variant_is_named_as_such() -> None:
    with pytest.raises(LimitError, match="isn't a setting of this decoding_type; it takes"):
        read(
            speculative_config__decoding_type="MTP",
            speculative_config__max_matching_ngram_size="2",
        )


def test_a_setting_is_not_given_as_a_whole_and_in_part() -> None:
    whole, part = {"cuda_graph_config": "null"}, {"cuda_graph_config.max_batch_size": "8"}
    for pairs in ({**whole, **part}, {**part, **whole}):
        with pytest.raises(LimitError, match="as a whole and in part"):
            nest(pairs)


def test_a_part_leaves_the_rest_of_its_object() -> None:
    under = {"kv_cache_config": {"enable_block_reuse": True, "free_gpu_memory_fraction": 0.9}}
    both = merged({"model": "m", **under}, nest({"kv_cache_config.dtype": "fp8"}))
    assert checked(MODEL_YAML, both)["kv_cache_config"] == {
        "enable_block_reuse": True,
        "free_gpu_memory_fraction": 0.9,
        "dtype": "fp8",
    }


def test_a_schedule_has_numbers_for_keys() -> None:
    found = read(
        speculative_config__decoding_type="NGram",
        speculative_config__draft_len_schedule='{"4": 4, "8": 2}',
    )
    assert found["speculative_config"]["draft_len_schedule"] == {4: 4, 8: 2}


def test_the_versions_that_have_all_settings_are_known() -> None:
    assert versions(read(max_batch_size="8")) == ("1.2", None)
    assert versions(read(kv_cache_config__disk_cache_size="0")) == ("1.4", None)
    assert versions(read(sampler_type="auto")) == ("1.2", "1.4")
    assert versions(read(speculative_config__decoding_type="SA")) == ("1.3", None)
    with pytest.raises(LimitError, match=r"disk_cache_size is new in 1\.4, sampler_type is gone"):
        versions(read(sampler_type="auto", kv_cache_config__disk_cache_size="0"))
