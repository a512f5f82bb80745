"""Promise: `--set` reaches every flag of trtllm-build, and a mistake in one is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trtllm_build_1_2 as upstream
from trtllm_checkpoints import checkpoint

from builder.errors import LimitError
from builder.mapping import Layout
from builder.targets.tensorrt_llm.command import arguments
from builder.targets.tensorrt_llm.config import BuildConfig
from builder.targets.tensorrt_llm.flags import FLAGS, Place
from builder.targets.tensorrt_llm.resolve import BuildOptions, resolve
from builder.targets.tensorrt_llm.settings import parse

LLAMA = checkpoint("llama-3.1-8b")

ANY: dict[str, Any] = {
    **dict.fromkeys(upstream.INTEGERS, "128"),
    **dict.fromkeys(("max_seq_len", "max_prompt_embedding_table_size"), "128"),
    **dict.fromkeys(upstream.SWITCHES, "on"),
    **{name: choices.split()[-1] for name, (_, choices) in upstream.CHOICES.items()},
    **{name: "enable" if off == "disable" else "disable" for name, off in upstream.TOGGLES.items()},
    **{name: dtypes[0] for name, (_, dtypes) in upstream.PLUGINS.items()},
    **dict.fromkeys(("model_cls_file", "model_cls_name", "visualize_network"), "a"),
    **{"kv_cache_type": "disabled", "lora_dir": "a,b", "lora_target_modules": "attn_qkv,moe_gate"},
}
"""A value for each flag that the strict table takes, where it can not the default."""

WRITTEN_ELSEWHERE = {
    *("checkpoint_dir", "output_dir", "workers", "input_timing_cache", "output_timing_cache"),
    *("dry_run", "model_config", "build_config", "paged_kv_cache", "gather_all_token_logits"),
}


@pytest.mark.parametrize("name", sorted(upstream.NAMES - WRITTEN_ELSEWHERE))
def test_a_setting_reaches_its_flag(name: str) -> None:
    (value,) = parse({name: ANY[name]}).values()
    flag, config = FLAGS[name], BuildConfig()
    fields = {
        Place.PLUGIN: "plugin_config",
        Place.LORA: "lora_config",
        Place.COMMAND: "command",
    }
    if holder := fields.get(flag.place):
        inner = replace(getattr(config, holder), **{flag.field: value})
        config = replace(config, **{holder: inner})
    else:
        config = replace(config, **{flag.field: value})
    read = getattr(upstream.parse(arguments(config, checkpoint=Path("c"), out=Path("o"))), name)
    words = read if isinstance(read, list) else [read]
    assert ",".join(map(str, words)) == ("True" if ANY[name] == "on" else ANY[name])


@pytest.mark.parametrize("name", sorted(WRITTEN_ELSEWHERE))
def test_what_trtbuild_says_itself_is_not_set(name: str) -> None:
    with pytest.raises(LimitError) as refused:
        parse({name: "1"})
    assert name in refused.value.what
    assert refused.value.do


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("max_batch_size", "eight", "'eight'"),
        ("max_batch_size", "-1", "'-1'"),
        ("max_batch_size", "1_000", "'1_000'"),
        ("max_batch_size", "", "''"),
        ("gemm_plugin", "fp16", "'fp16'"),
        ("gemm_plugin", "Auto", "'Auto'"),
        ("context_fmha", "maybe", "'maybe'"),
        ("kv_cache_type", "Paged", "'Paged'"),
        ("lora_target_modules", "attn_q,q_proj", "'attn_q,q_proj'"),
        ("lora_dir", "a,,b", "'a,,b'"),
        ("visualize_network", " ", "''"),
    ],
)
def test_a_value_that_the_flag_does_not_take_is_refused(
    setting: str, value: str, found: str
) -> None:
    with pytest.raises(LimitError) as refused:
        parse({setting: value})
    assert setting in refused.value.what
    assert refused.value.found == found
    assert all(choice in str(refused.value.do) for choice in FLAGS[setting].choices)


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [("max_batchsize", "max_batch_size"), ("gemm_plugins", "gemm_plugin"), ("use_fmha", None)],
)
def test_an_unknown_flag_is_refused_with_what_may_be_meant(
    mistyped: str, meant: str | None
) -> None:
    with pytest.raises(LimitError) as refused:
        parse({mistyped: "1"})
    assert refused.value.found == f"--set {mistyped}"
    assert (meant or "context_fmha") in str(refused.value.do)


def test_a_flag_may_be_written_as_people_write_it() -> None:
    written = {"max-batch-size": "8", "--max_decoder_seq_len": "64", "max_multimodal_len": "7"}
    assert parse(written) == {
        **{"max_batch_size": 8, "max_seq_len": 64},
        **{"max_prompt_embedding_table_size": 7},
    }


def test_a_setting_beats_the_option_and_the_default() -> None:
    options = BuildOptions(
        max_batch_size=8, settings={"max_batch_size": "16", "gemm_plugin": "disable"}
    )
    resolved = resolve(LLAMA, options)
    assert resolved.config.max_batch_size == 16
    assert resolved.config.plugin_config.gemm_plugin is None
    assert resolved.reasons["gemm_plugin"] == "as asked"


def test_other_values_follow_a_setting() -> None:
    unfused = resolve(LLAMA, BuildOptions(settings={"context_fmha": "disable"})).config
    assert not unfused.plugin_config.use_paged_context_fmha
    assert unfused.max_input_len == unfused.max_num_tokens == 8192
    uncached = resolve(LLAMA, BuildOptions(settings={"kv_cache_type": "disabled"})).config
    assert not uncached.plugin_config.use_paged_context_fmha


def test_a_setting_that_contradicts_another_is_refused() -> None:
    settings = {"context_fmha": "disable", "use_paged_context_fmha": "enable"}
    with pytest.raises(LimitError, match="kinds of context_fmha"):
        resolve(LLAMA, BuildOptions(settings=settings))
    settings = {"multiple_profiles": "enable", "opt_num_tokens": "64"}
    with pytest.raises(LimitError, match="exclude each other"):
        resolve(LLAMA, BuildOptions(settings=settings))


def test_a_setting_for_one_family_is_taken_there_and_refused_elsewhere() -> None:
    settings = {"pp_reduce_scatter": "enable"}
    mixtral = checkpoint("mixtral-8x7b", layout=Layout(tp=2, pp=2))
    assert resolve(mixtral, BuildOptions(settings=settings)).config.plugin_config.pp_reduce_scatter
    with pytest.raises(LimitError, match="Mixtral"):
        resolve(LLAMA, BuildOptions(settings=settings))
