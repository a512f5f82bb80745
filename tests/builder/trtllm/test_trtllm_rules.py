"""Promise: what trtllm-build would refuse, fail on or silently change is refused before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from trtllm_checkpoints import EAGLE, MEDUSA, REDRAFTER, checkpoint

from builder.errors import LimitError
from builder.mapping import Layout
from builder.targets.tensorrt_llm.case import Case
from builder.targets.tensorrt_llm.config import (
    BuildConfig,
    CommandOptions,
    LoraConfig,
    PluginConfig,
)
from builder.targets.tensorrt_llm.resolve import BuildOptions, resolve
from builder.targets.tensorrt_llm.rules import RULES, broken, check

LLAMA = checkpoint("llama-3.1-8b")
TP4 = checkpoint("llama-3.1-70b", layout=Layout(tp=4))
FP8 = checkpoint("llama-3.1-8b", "FP8", "FP8")
INT8_CACHE = checkpoint("llama-3.1-8b", "W8A8_SQ_PER_CHANNEL", "INT8")
NVFP4 = checkpoint("llama-3.1-8b", "NVFP4", "FP8")
HEADS = checkpoint("llama-2-7b")
MEDUSA_LLAMA = {**HEADS, **MEDUSA}
EAGLE_LLAMA = {**HEADS, **EAGLE}
DRAFTS = {"speculative_decoding_mode": "lookahead_decoding", "max_draft_len": 7}


def with_algo(algo: str, cache: str | None = None, **more: Any) -> dict[str, Any]:
    return checkpoint("llama-3.1-8b", algo, cache, **more)


@dataclass
class Broken:
    """A sound engine of `model`, of which some fields are then changed."""

    rule: str
    model: Mapping[str, Any]
    build: dict[str, Any] = field(default_factory=dict)
    plugins: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    command: dict[str, Any] = field(default_factory=dict)
    sm: int | None = None
    becomes: Mapping[str, Any] | None = None
    """Another checkpoint for the same config."""

    def sound(self) -> BuildConfig:
        return resolve(self.model).config

    def config(self) -> BuildConfig:
        sound = self.sound()
        return replace(
            sound,
            **self.build,
            plugin_config=replace(sound.plugin_config, **self.plugins),
            lora_config=replace(sound.lora_config, **self.lora),
            command=replace(sound.command, **self.command),
        )

    def case(self) -> Case:
        model = self.becomes or self.model
        return Case(config=self.config(), checkpoint=model, sm=self.sm)


def plugin(rule: str, model: Mapping[str, Any] = LLAMA, **plugins: Any) -> Broken:
    return Broken(rule, model, plugins=plugins)


def limit(rule: str, model: Mapping[str, Any] = LLAMA, **build: Any) -> Broken:
    return Broken(rule, model, build=build)


EACH: tuple[Broken, ...] = (
    # what the GPU can't do
    Broken("gpu-generation", LLAMA, sm=75),
    Broken("gpu-arithmetic", with_algo("FP8"), sm=86),
    Broken("gpu-arithmetic", with_algo("W4A8_AWQ", group_size=128), sm=80),
    Broken("gpu-arithmetic", with_algo("NVFP4"), sm=90),
    Broken("gpu-fp8-cache", with_algo("W4A16_AWQ", "FP8", group_size=128), sm=86),
    Broken("gpu-blackwell-int", with_algo("W8A8_SQ_PER_CHANNEL"), sm=100),
    Broken("gpu-blackwell-int", with_algo("W8A16"), sm=100),
    Broken("gpu-blackwell-int", with_algo("W4A16"), sm=103),
    Broken("gpu-blackwell-int", with_algo("W4A16_AWQ", group_size=128), sm=103),
    Broken("gpu-blackwell-int", with_algo("W4A8_AWQ", group_size=128), sm=110),
    Broken("gpu-blackwell-int", with_algo("W4A16_GPTQ", group_size=128), sm=100),
    Broken("gpu-blackwell-int", with_algo("FP8_PER_CHANNEL_PER_TOKEN"), sm=100),
    Broken("gpu-blackwell-int", with_algo("NO_QUANT", "INT8"), sm=100),
    Broken(
        "gpu-blackwell-int",
        with_algo(
            "MIXED_PRECISION",
            quantized_layers={
                "transformer.layers.0.mlp.fc": {"quant_algo": "W4A16_AWQ", "group_size": 128},
                "transformer.layers.0.mlp.proj": {"quant_algo": "FP8"},
            },
        ),
        sm=100,
    ),
    Broken("gpu-sm100-plugins", FP8, plugins={"low_latency_gemm_plugin": "fp8"}, sm=100),
    Broken("gpu-sm100-plugins", LLAMA, plugins={"bert_context_fmha_fp32_acc": True}, sm=100),
    Broken(
        "group-size",
        with_algo("W4A8_AWQ", group_size=128),
        becomes=with_algo("W4A8_AWQ", group_size=64),
    ),
    Broken(
        "group-size",
        with_algo("W4A16_AWQ", group_size=128),
        becomes=with_algo("W4A16_AWQ", group_size=32),
    ),
    # limits
    limit("range", max_batch_size=0),
    limit("range", max_beam_width=0),
    limit("range", max_batch_size=2**31),
    limit("range", opt_num_tokens=0),
    limit("range", max_encoder_input_len=2**31),
    limit("range", max_prompt_embedding_table_size=2**31),
    limit("max-seq-len-stated", max_seq_len=None),
    limit("max-seq-len-trained", max_seq_len=131073),
    limit("input-within-seq-len", max_seq_len=1024, max_input_len=1025),
    limit("num-tokens-of-batch", max_batch_size=2, max_seq_len=1024, max_input_len=1024),
    limit("num-tokens-of-block", max_num_tokens=31),
    Broken(
        "num-tokens-of-prompt",
        LLAMA,
        build={"max_input_len": 8193},
        plugins={"use_paged_context_fmha": False},
    ),
    limit("opt-num-tokens", opt_num_tokens=8193),
    Broken(
        "opt-num-tokens-or-profiles",
        LLAMA,
        build={"opt_num_tokens": 64},
        plugins={"multiple_profiles": True},
    ),
    plugin("tokens-per-block", tokens_per_block=48),
    # attention and the cache
    plugin("in-flight-batching", remove_input_padding=False),
    plugin("in-flight-batching", gpt_attention_plugin=None),
    Broken(
        "in-flight-batching",
        LLAMA,
        build={"kv_cache_type": "continuous", "max_input_len": 8192},
        plugins={"use_paged_context_fmha": False},
    ),
    plugin("context-fmha", context_fmha=False),
    limit("paged-context-cache", kv_cache_type="disabled"),
    plugin("paged-context-int8", INT8_CACHE, use_paged_context_fmha=True),
    plugin("fp8-context-model", use_fp8_context_fmha=True, use_paged_context_fmha=False),
    Broken("fp8-context-gpu", FP8, sm=86),
    plugin("fp8-context-cache", with_algo("FP8"), use_fp8_context_fmha=True),
    plugin("fp8-cache-context", FP8, use_fp8_context_fmha=False),
    plugin("fp8-cache-context", with_algo("NO_QUANT", "FP8"), use_paged_context_fmha=True),
    # speculative decoding
    limit("draft-heads", speculative_decoding_mode="medusa", max_draft_len=7),
    limit("draft-heads", speculative_decoding_mode="eagle", max_draft_len=7),
    limit("draft-heads", speculative_decoding_mode="explicit_draft_tokens", max_draft_len=7),
    limit("draft-heads", MEDUSA_LLAMA, speculative_decoding_mode="eagle"),
    limit("draft-heads-used", MEDUSA_LLAMA, speculative_decoding_mode="none", max_draft_len=0),
    limit("draft-heads-used", {**HEADS, **REDRAFTER}, speculative_decoding_mode="none"),
    limit("draft-mode", max_draft_len=7),
    limit("draft-length", speculative_decoding_mode="lookahead_decoding"),
    limit("draft-length-of-heads", MEDUSA_LLAMA, max_draft_len=31),
    limit("draft-beams", **DRAFTS, max_beam_width=4),
    limit(
        "draft-within-seq-len",
        **{"speculative_decoding_mode": "lookahead_decoding", "max_draft_len": 200},
        **{"max_seq_len": 200, "max_input_len": 100, "max_batch_size": 64},
    ),
    limit("draft-num-tokens", **DRAFTS, max_batch_size=1025),
    limit("draft-context-logits", **DRAFTS, gather_context_logits=True),
    limit("eagle-batch", EAGLE_LLAMA, max_batch_size=513, max_num_tokens=513 * 64),
    limit("eagle-draft", {**EAGLE_LLAMA, "max_draft_len": 256}, max_draft_len=257),
    Broken("eagle-pipeline", EAGLE_LLAMA, becomes={**EAGLE_LLAMA, "mapping": {"pp_size": 2}}),
    Broken(
        "draft-paged-context",
        EAGLE_LLAMA,
        build={"max_input_len": 64},
        plugins={"use_paged_context_fmha": False},
    ),
    Broken(
        "draft-paged-context",
        LLAMA,
        build={**DRAFTS, "speculative_decoding_mode": "draft_tokens_external", "max_input_len": 64},
        plugins={"use_paged_context_fmha": False},
    ),
    # plugins
    plugin("reduce-fusion", reduce_fusion=True),
    plugin("reduce-fusion", checkpoint("qwen2.5-72b", layout=Layout(tp=4)), reduce_fusion=True),
    plugin("user-buffer", FP8, user_buffer=True),
    plugin("user-buffer", TP4, user_buffer=True, reduce_fusion=True),
    plugin("norm-quant-fusion", norm_quant_fusion=True),
    plugin("norm-quant-fusion", checkpoint("mistral-7b", "NVFP4", "FP8"), norm_quant_fusion=True),
    plugin(
        "norm-quant-fusion",
        checkpoint("llama-3.1-70b", "NVFP4", "FP8", layout=Layout(tp=4)),
        norm_quant_fusion=True,
        reduce_fusion=True,
    ),
    plugin("gemm-plugin", NVFP4, gemm_plugin="auto"),
    plugin("gemm-plugin", gemm_plugin="nvfp4"),
    plugin("gemm-plugin", gemm_plugin="fp8"),
    plugin("fp8-plugins", gemm_swiglu_plugin="fp8"),
    plugin("fp8-plugins", low_latency_gemm_plugin="fp8"),
    plugin("fp8-plugins", NVFP4, low_latency_gemm_swiglu_plugin="fp8"),
    plugin("fp8-rowwise-plugin", FP8, fp8_rowwise_gemm_plugin="auto"),
    plugin("fp4-fusion", FP8, fuse_fp4_quant=True),
    plugin("swiglu-fused", FP8, gemm_swiglu_plugin="fp8", use_fused_mlp=False),
    Broken("swiglu-gpu", FP8, plugins={"gemm_swiglu_plugin": "fp8"}, sm=89),
    plugin("gemm-allreduce", gemm_allreduce_plugin="float16"),
    plugin("streamingllm", streamingllm=True),
    plugin("pp-reduce-scatter", pp_reduce_scatter=True),
    Broken(
        "fast-build",
        with_algo("W4A16"),
        plugins={"manage_weights": True},
        becomes={**with_algo("W4A16"), "disable_weight_only_quant_plugin": True},
    ),
    limit("weight-streaming", weight_streaming=True),
    Broken(
        "weight-streaming",
        with_algo("W8A16"),
        build={"weight_streaming": True},
        plugins={"gemm_plugin": None},
    ),
    Broken("lora-plugin", LLAMA, lora={"lora_target_modules": ("attn_qkv",)}),
    plugin("lora-plugin", dora_plugin=True),
    plugin("lora-modules", lora_plugin="auto"),
    Broken(
        "lora-module-names",
        LLAMA,
        plugins={"lora_plugin": "auto"},
        lora={"lora_target_modules": ("q_proj",)},
    ),
    Broken(
        "lora-module-names",
        LLAMA,
        plugins={"lora_plugin": "auto"},
        lora={"lora_ckpt_source": "nemo", "lora_target_modules": ("attn_qkv", "mlp_gate")},
    ),
    Broken(
        "lora-rank",
        LLAMA,
        plugins={"lora_plugin": "auto"},
        lora={"lora_target_modules": ("attn_qkv",), "max_lora_rank": 0},
    ),
    Broken(
        "lora-square",
        checkpoint("gemma-2-27b"),
        plugins={"lora_plugin": "auto"},
        lora={"lora_target_modules": ("attn_q", "attn_dense"), "max_lora_rank": 8},
    ),
    Broken("model-class", LLAMA, command={"model_cls_file": "model.py"}),
)


@pytest.mark.parametrize("each", EACH, ids=[f"{n}-{each.rule}" for n, each in enumerate(EACH)])
def test_a_contradiction_is_refused_by_its_rule(each: Broken) -> None:
    check(each.sound(), each.model)
    found = {rule.name: what for rule, what in broken(each.case())}
    assert each.rule in found
    case = each.case()
    with pytest.raises(LimitError) as refused:
        check(case.config, case.checkpoint, case.sm)
    error = refused.value
    assert error.found
    assert error.do
    assert any(f"({name})" in error.what for name in found)


def test_every_rule_is_broken_by_a_test() -> None:
    assert {each.rule for each in EACH} == RULES.keys()


def test_every_rule_names_its_source() -> None:
    assert all(rule.source and rule.what and rule.do for rule in RULES.values())


ALONE = [each for each in EACH if each.rule not in ("draft-heads", "fp8-context-gpu")]


@pytest.mark.parametrize("each", ALONE, ids=[f"{n}-{each.rule}" for n, each in enumerate(ALONE)])
def test_what_is_sound_but_for_one_thing_breaks_few_rules(each: Broken) -> None:
    assert len(broken(each.case())) <= 2


@pytest.mark.parametrize(
    ("model", "sm"),
    [
        (LLAMA, 80),
        (LLAMA, 121),
        (FP8, 89),
        (FP8, 100),
        (NVFP4, 100),
        (NVFP4, 120),
        (with_algo("W4A8_AWQ", "FP8", group_size=128), 90),
        (with_algo("W4A16_AWQ", group_size=64), 120),
        (INT8_CACHE, 86),
        (TP4, 90),
    ],
)
def test_what_tensorrt_llm_builds_is_not_refused(model: Mapping[str, Any], sm: int) -> None:
    check(resolve(model).config, model, sm)


FP8_TP4 = checkpoint("llama-3.1-70b", "FP8", "FP8", layout=Layout(tp=4))


@pytest.mark.parametrize(
    ("model", "plugins"),
    [
        (TP4, {"reduce_fusion": True}),
        (checkpoint("gemma-2-27b", layout=Layout(tp=2)), {"reduce_fusion": True}),
        (FP8_TP4, {"reduce_fusion": True, "user_buffer": True}),
        (NVFP4, {"norm_quant_fusion": True}),
        (NVFP4, {"fuse_fp4_quant": True}),
        (NVFP4, {"gemm_plugin": None}),
        (FP8, {"gemm_plugin": "fp8"}),
        (FP8, {"gemm_plugin": "auto"}),
        (FP8, {"gemm_swiglu_plugin": "fp8"}),
        (FP8, {"low_latency_gemm_plugin": "fp8", "low_latency_gemm_swiglu_plugin": "fp8"}),
        (with_algo("FP8_PER_CHANNEL_PER_TOKEN"), {"fp8_rowwise_gemm_plugin": "auto"}),
        (TP4, {"gemm_allreduce_plugin": "bfloat16"}),
        (checkpoint("mixtral-8x7b", layout=Layout(pp=2)), {"pp_reduce_scatter": True}),
        (with_algo("W4A16"), {"manage_weights": True}),
        (LLAMA, {"paged_kv_cache": True, "multiple_profiles": True, "tokens_per_block": 64}),
        (INT8_CACHE, {"use_paged_context_fmha": False}),
    ],
    ids=str,
)
def test_a_plugin_where_it_belongs_is_not_refused(
    model: Mapping[str, Any], plugins: dict[str, Any]
) -> None:
    config = resolve(model).config
    sm = 100 if model is NVFP4 else 90
    check(replace(config, plugin_config=replace(config.plugin_config, **plugins)), model, sm)


@pytest.mark.parametrize(
    "build",
    [
        {"max_num_tokens": 32},
        {"opt_num_tokens": 8192},
        {"max_input_len": 131072},
        {"max_batch_size": 1, "max_seq_len": 8192, "max_input_len": 1},
        {"max_batch_size": 2**31 - 1},
        {**DRAFTS, "max_batch_size": 1024},
    ],
    ids=str,
)
def test_a_limit_at_its_edge_is_not_refused(build: dict[str, Any]) -> None:
    check(replace(resolve(LLAMA).config, **build), LLAMA)


def test_eagle_at_its_edge_is_not_refused() -> None:
    model = {**EAGLE_LLAMA, "max_draft_len": 256}
    config = resolve(model).config
    edge = {"max_batch_size": 512, "max_draft_len": 256, "max_num_tokens": 512 * 257}
    check(replace(config, **edge), model)


def test_positions_without_an_end_are_not_limited() -> None:
    config = replace(resolve(LLAMA).config, max_seq_len=10**6)
    check(config, {**LLAMA, "position_embedding_type": "relative"})
    check(config, {**LLAMA, "max_position_embeddings": None})


def test_without_a_gpu_nothing_is_said_of_it() -> None:
    check(resolve(NVFP4).config, NVFP4)


def test_the_context_is_that_of_the_scaled_model() -> None:
    yarn = {**LLAMA, "max_position_embeddings": 32768}
    yarn["rotary_scaling"] = {"rope_type": "yarn", "factor": 4.0}
    config = replace(resolve(LLAMA).config, max_seq_len=131072, max_input_len=131071)
    check(config, yarn)
    with pytest.raises(LimitError, match="was made for 131072"):
        check(replace(config, max_seq_len=131073), yarn)


def test_a_message_says_what_was_found_and_what_to_do() -> None:
    with pytest.raises(LimitError) as refused:
        resolve(
            LLAMA,
            BuildOptions(gather=("context",), speculative="lookahead_decoding", max_draft_len=7),
        )
    assert str(refused.value) == (
        "a prompt's logits can't be had together with drafts (draft-context-logits); "
        "found gather_context_logits and max_draft_len 7; ask for --gather-logits generation"
    )


def test_upstreams_own_defaults_are_refused_where_it_would_change_them() -> None:
    names = {rule.name for rule, _ in broken(Case(config=BuildConfig(), checkpoint=LLAMA))}
    assert names == {"max-seq-len-stated", "fp8-context-model"}
    plain = (PluginConfig(), LoraConfig(), CommandOptions())
    assert plain == (BuildConfig().plugin_config, BuildConfig().lora_config, BuildConfig().command)
