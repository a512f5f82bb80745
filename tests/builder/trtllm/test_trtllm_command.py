"""Promise: what we write for trtllm-build, it reads, and reads as we mean it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from trtllm_build_1_2 import (
    BUILD_WITHOUT_FLAG,
    NAMES,
    PLUGINS,
    TOGGLES,
    WITHOUT_FLAG,
    build_config,
    parse,
)
from trtllm_checkpoints import EAGLE, MEDUSA, REDRAFTER, checkpoint

from builder.checkpoint_config import pretrained_config
from builder.gpus import find
from builder.mapping import Layout
from builder.source import open_source
from builder.targets.tensorrt_llm.command import arguments
from builder.targets.tensorrt_llm.config import BuildConfig
from builder.targets.tensorrt_llm.flags import FLAGS, NOT_SET, SPELLINGS
from builder.targets.tensorrt_llm.resolve import BuildOptions, Resolved, resolve

CHECKPOINT, OUT = Path("/models/checkpoint"), Path("/models/engine")
SERVING = {"kv_cache_type": "paged", "remove_input_padding": "enable", "context_fmha": "enable"}
CHUNKED = {**SERVING, "use_paged_context_fmha": "enable", "use_fp8_context_fmha": "disable"}
FP8_CHUNKED = {**CHUNKED, "use_fp8_context_fmha": "enable"}


@dataclass
class Built:
    """One configuration: a model and how it was made, what is asked, what must come of it."""

    model: dict[str, Any]
    expected: dict[str, Any]
    gpu: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def resolved(self) -> Resolved:
        gpu = find(self.gpu) if self.gpu else None
        return resolve(self.model, BuildOptions(gpu=gpu, **self.options))


def tp(ranks: int, pp: int = 1, **more: int) -> Layout:
    return Layout(tp=ranks, pp=pp, **more)


AUTO = {**CHUNKED, "gemm_plugin": "auto"}
DRAFTS = {"speculative": "lookahead_decoding", "max_draft_len": 83}
LLAMA = "llama-3.1-8b"
HEADS = checkpoint("llama-2-7b")

CONFIGURATIONS: dict[str, Built] = {
    # families and dtypes
    "llama": Built(checkpoint(LLAMA), AUTO),
    "llama-float16": Built(checkpoint(LLAMA, dtype="float16"), AUTO),
    "llama-float32": Built(
        checkpoint(LLAMA, dtype="float32"),
        {"context_fmha": "disable", "use_paged_context_fmha": "disable"},
    ),
    "llama-h100": Built(checkpoint(LLAMA), {**AUTO, "max_num_tokens": 8192}, "H100-80GB"),
    "llama-a100": Built(checkpoint(LLAMA), AUTO, "A100-40GB"),
    "llama-b200": Built(checkpoint(LLAMA), {**AUTO, "gemm_plugin": "disable"}, "B200"),
    "mistral": Built(checkpoint("mistral-7b"), {**AUTO, "max_seq_len": 32768}),
    "mixtral": Built(checkpoint("mixtral-8x7b"), {**AUTO, "moe_plugin": "auto"}),
    "qwen2.5": Built(checkpoint("qwen2.5-72b"), {**AUTO, "max_seq_len": 32768}),
    "qwen3": Built(checkpoint("qwen3-8b"), {**AUTO, "max_seq_len": 40960}),
    "gemma2": Built(checkpoint("gemma-2-27b"), {**AUTO, "max_seq_len": 8192}),
    # recipes
    "fp8": Built(
        checkpoint(LLAMA, "FP8", "FP8"), {**FP8_CHUNKED, "gemm_plugin": "disable"}, "H100-80GB"
    ),
    "fp8-wide-cache": Built(
        checkpoint(LLAMA, "FP8"), {**CHUNKED, "gemm_plugin": "disable"}, "H100-80GB"
    ),
    "fp8-low-latency": Built(
        checkpoint(LLAMA, "FP8", "FP8"),
        {**FP8_CHUNKED, "gemm_plugin": "fp8", "max_batch_size": 2},
        "H100-80GB",
        {"max_batch_size": 2},
    ),
    "nvfp4": Built(
        checkpoint(LLAMA, "NVFP4", "FP8", group_size=16),
        {**FP8_CHUNKED, "gemm_plugin": "nvfp4"},
        "B200",
    ),
    "int4-awq": Built(checkpoint(LLAMA, "W4A16_AWQ", group_size=128), AUTO, "A100-80GB"),
    "int4-awq-fp8-cache": Built(
        checkpoint(LLAMA, "W4A16_AWQ", "FP8", group_size=64),
        {**SERVING, "use_paged_context_fmha": "disable", "use_fp8_context_fmha": "disable"},
        "L40S",
    ),
    "w4a8-awq": Built(
        checkpoint(LLAMA, "W4A8_AWQ", "FP8", group_size=128), FP8_CHUNKED, "RTX 4090"
    ),
    "int8-weight-only": Built(checkpoint(LLAMA, "W8A16"), AUTO, "A10"),
    "int4-weight-only": Built(checkpoint("mixtral-8x7b", "W4A16"), AUTO, "A100-80GB"),
    "smoothquant-int8-cache": Built(
        checkpoint(LLAMA, "W8A8_SQ_PER_CHANNEL", "INT8"),
        {**SERVING, "use_paged_context_fmha": "disable", "max_input_len": 8192},
        "A100-80GB",
    ),
    "fp8-cache-of-bfloat16": Built(
        checkpoint(LLAMA, None, "FP8"),
        {**SERVING, "use_paged_context_fmha": "disable", "use_fp8_context_fmha": "disable"},
        "H100-80GB",
    ),
    # layouts
    "70b-tp4": Built(checkpoint("llama-3.1-70b", layout=tp(4)), AUTO, "H100-80GB"),
    "70b-tp8-pp2": Built(checkpoint("llama-3.1-70b", layout=tp(8, 2)), AUTO, "A100-80GB"),
    "70b-fp8-tp2": Built(
        checkpoint("llama-3.1-70b", "FP8", "FP8", layout=tp(2)), FP8_CHUNKED, "H200"
    ),
    "mixtral-ep": Built(checkpoint("mixtral-8x7b", layout=tp(4, moe_ep=4)), AUTO, "H100-80GB"),
    "mixtral-pp": Built(
        checkpoint("mixtral-8x7b", layout=tp(2, 2)),
        {**AUTO, "pp_reduce_scatter": "enable"},
        "H100-80GB",
        {"settings": {"pp_reduce_scatter": "enable"}},
    ),
    "72b-tp8": Built(checkpoint("qwen2.5-72b", layout=tp(8)), AUTO, "A100-80GB"),
    # limits
    "limits": Built(
        checkpoint(LLAMA),
        {"max_batch_size": 16, "max_seq_len": 4096, "max_input_len": 3072, "max_num_tokens": 2048},
        options={
            **{"max_batch_size": 16, "max_seq_len": 4096},
            **{"max_input_len": 3072, "max_num_tokens": 2048},
        },
    ),
    "one-short-sequence": Built(
        checkpoint(LLAMA),
        {"max_num_tokens": 1024, "max_input_len": 1023},
        options={"max_batch_size": 1, "max_seq_len": 1024},
    ),
    "beams": Built(checkpoint(LLAMA), {"max_beam_width": 4}, options={"max_beam_width": 4}),
    # logits
    "context-logits": Built(
        checkpoint(LLAMA),
        {"gather_context_logits": True, "gather_generation_logits": False},
        options={"gather": ("context",)},
    ),
    "all-logits": Built(
        checkpoint(LLAMA),
        {
            "gather_context_logits": True,
            "gather_generation_logits": True,
            "logits_dtype": "float16",
        },
        options={"gather": ("context", "generation"), "settings": {"logits_dtype": "float16"}},
    ),
    # speculative decoding
    "draft-model": Built(
        checkpoint("llama-3.1-70b", layout=tp(4)),
        {"speculative_decoding_mode": "draft_tokens_external", "max_draft_len": 10},
        "H100-80GB",
        {"speculative": "draft_tokens_external", "max_draft_len": 10},
    ),
    "lookahead": Built(
        checkpoint(LLAMA),
        {"speculative_decoding_mode": "lookahead_decoding", "max_draft_len": 83},
        "H100-80GB",
        DRAFTS,
    ),
    "medusa": Built(
        {**HEADS, **MEDUSA},
        {"speculative_decoding_mode": "medusa", "max_draft_len": 63},
        "A100-80GB",
    ),
    "eagle": Built(
        {**HEADS, **EAGLE},
        {"speculative_decoding_mode": "eagle", "max_draft_len": 63},
        options={"speculative": "eagle", "max_batch_size": 4, "gather": ("generation",)},
    ),
    "redrafter": Built(
        {**HEADS, **REDRAFTER},
        {"speculative_decoding_mode": "explicit_draft_tokens", "max_draft_len": 25},
    ),
    # features
    "weight-streaming": Built(
        checkpoint(LLAMA),
        {"weight_streaming": True, "gemm_plugin": "disable"},
        "L4",
        {"weight_streaming": True},
    ),
    "multiple-profiles": Built(
        checkpoint(LLAMA), {"multiple_profiles": "enable"}, options={"multiple_profiles": True}
    ),
    "lora-at-run-time": Built(
        checkpoint(LLAMA),
        {
            "lora_plugin": "auto",
            "lora_target_modules": ["attn_q", "attn_k", "attn_v", "mlp_gate"],
            "max_lora_rank": 8,
        },
        options={"lora_target_modules": ("attn_q", "mlp_gate"), "max_lora_rank": 8},
    ),
    "fusions": Built(
        checkpoint("llama-3.1-70b", "FP8", "FP8", layout=tp(4)),
        {"reduce_fusion": "enable", "user_buffer": "enable", "gemm_swiglu_plugin": "fp8"},
        "H100-80GB",
        {
            "settings": {
                **{"reduce_fusion": "enable", "user_buffer": "on"},
                **{"gemm-swiglu-plugin": "fp8", "use_fused_mlp": "enable"},
            }
        },
    ),
    "debugging": Built(
        checkpoint("qwen3-8b"),
        {
            **{"log_level": "verbose", "profiling_verbosity": "detailed", "strip_plan": True},
            **{"visualize_network": "/tmp", "monitor_memory": True, "fast_build": True},
        },
        options={
            "settings": {
                **{"log_level": "verbose", "profiling_verbosity": "detailed", "strip_plan": "on"},
                **{"visualize_network": "/tmp", "monitor_memory": "on", "fast_build": "on"},
            }
        },
    ),
}


def words(config: BuildConfig, **more: Any) -> list[str]:
    return arguments(config, checkpoint=CHECKPOINT, out=OUT, **more)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_trtllm_build_reads_every_configuration_as_it_was_resolved(name: str) -> None:
    built = CONFIGURATIONS[name]
    config = built.resolved().config
    read = vars(parse(words(config)))
    assert {flag: read[flag] for flag in built.expected} == built.expected
    ours = config.to_json()
    for key, value in build_config(words(config)).items():
        mine = ours[key]
        if isinstance(value, dict):
            mine = {inner: mine[inner] for inner in value}
        assert mine == value, key


def test_more_than_thirty_configurations_are_tried() -> None:
    assert len(CONFIGURATIONS) > 30


def test_trtllm_build_reads_what_is_resolved_for_the_tiny_models(
    tiny_models: dict[str, Path],
) -> None:
    for name, folder in tiny_models.items():
        model = open_source(folder).config
        config = {**pretrained_config(model, "float16", Layout()), "quantization": {}}
        read = parse(words(resolve(config).config))
        assert (read.max_seq_len, read.max_input_len) == (512, 511), name
        assert read.gemm_plugin == "auto", name


@pytest.mark.parametrize(
    "wrong",
    [
        ["--max_batchsize", "8"],
        ["--max_batch", "8"],
        ["--max_batch_size", "eight"],
        ["--gemm_plugin", "fp16"],
        ["--weight_streaming", "enable"],
        ["--context_fmha"],
        ["--lora_target_modules", "q_proj"],
        ["--speculative_decoding_mode", "none"],
        ["--kv_cache_type", "PAGED "],
        ["--max_batch_size", "8", "--max_batch_size", "9"],
        ["--gpus_per_node", "8"],
    ],
    ids=" ".join,
)
def test_the_strict_table_notices_a_mistake(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse(wrong)


def test_our_flags_are_upstreams_no_more_and_no_less() -> None:
    assert FLAGS.keys() | NOT_SET.keys() == NAMES
    assert not FLAGS.keys() & NOT_SET.keys()
    assert {"max_decoder_seq_len", "max_multimodal_len"} == SPELLINGS.keys()


def test_upstreams_defaults_are_ours() -> None:
    ours = BuildConfig().to_json()
    for key, value in build_config([]).items():
        mine = {name: ours[key][name] for name in value} if isinstance(value, dict) else ours[key]
        assert mine == value, key


def test_our_plugin_config_has_upstreams_fields() -> None:
    ours = BuildConfig().to_json()["plugin_config"]
    assert ours.keys() == {"dtype", "tokens_per_block", *TOGGLES, *PLUGINS, *WITHOUT_FLAG}
    assert {name: ours[name] for name in WITHOUT_FLAG} == WITHOUT_FLAG


def test_what_no_flag_sets_is_upstreams() -> None:
    ours = BuildConfig().to_json()
    for name, value in BUILD_WITHOUT_FLAG.items():
        assert ours[name] == value, name
    rest = {"plugin_config", "lora_config", "max_seq_len", "output_timing_cache"}
    assert ours.keys() == {*BUILD_WITHOUT_FLAG, *build_config([]), *rest}


def test_a_default_that_moved_between_releases_is_written_out() -> None:
    written = words(resolve(checkpoint(LLAMA)).config)
    for flag in ("--tokens_per_block", "--use_paged_context_fmha", "--kv_cache_type"):
        assert flag in written
    assert "--use_fused_mlp" not in written


def test_the_timing_cache_is_never_left_in_the_working_directory() -> None:
    config = resolve(checkpoint(LLAMA)).config
    assert parse(words(config)).output_timing_cache == str(OUT / "model.cache")
    kept = Path("/cache/sm90.cache")
    read = parse(words(config, input_timing_cache=kept, output_timing_cache=kept, workers=8))
    assert (read.input_timing_cache, read.output_timing_cache) == (str(kept), str(kept))
    assert (read.checkpoint_dir, read.output_dir, read.workers) == (
        *(str(CHECKPOINT), str(OUT)),
        8,
    )


def test_the_same_config_gives_the_same_words() -> None:
    model = checkpoint("mixtral-8x7b", layout=tp(2))
    assert words(resolve(model).config) == words(resolve(dict(model)).config)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_config_comes_back_from_its_json(name: str) -> None:
    config = CONFIGURATIONS[name].resolved().config
    back = BuildConfig.from_json(config.to_json())
    assert back == replace(config, visualize_network=None, command=back.command)
    assert back.to_json() == config.to_json()
