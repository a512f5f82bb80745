"""Promise: what isn't asked for is chosen for serving, with its reason, and fits the GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft_adapters
import pytest
from trtllm_checkpoints import EAGLE, MEDUSA, checkpoint

from builder.errors import ArtifactError, LimitError, ModelError
from builder.gpus import find
from builder.mapping import Layout
from builder.memory import rank_memory
from builder.targets.tensorrt_llm.config import BuildConfig
from builder.targets.tensorrt_llm.resolve import BuildOptions, resolve

LLAMA = checkpoint("llama-3.1-8b")
HEADS = checkpoint("llama-2-7b")
H100 = find("H100-80GB")


LINEARS = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.v_proj": (4096, 1024),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (4096, 14336),
    "mlp.up_proj": (4096, 14336),
    "mlp.down_proj": (14336, 4096),
    "mlp.other": (4096, 4096),
}
"""Of Llama 3.1 8B: [in, out]."""


def adapter(folder: Path, *linears: str, **changes: Any) -> Path:
    """A LoRA adapter's folder as PEFT writes it; its rank is 16, its matrices' 1."""
    names = linears or ("self_attn.q_proj", "self_attn.v_proj")
    shapes = {f"model.layers.3.{name}": LINEARS[name] for name in names}
    peft_adapters.by_hand(folder, shapes, r=1)
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 16, **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_every_value_that_is_not_upstreams_has_a_reason() -> None:
    options = BuildOptions(gpu=H100, gather=("generation",), settings={"log_level": "warning"})
    resolved = resolve(checkpoint("llama-3.1-8b", "FP8", "FP8"), options)
    assert all(resolved.reasons.values())
    ours, theirs = resolved.config.to_json(), BuildConfig().to_json()
    for inner in ("plugin_config", "lora_config"):
        ours |= ours.pop(inner)
        theirs |= theirs.pop(inner)
    changed = {name for name in theirs if ours[name] != theirs[name]} - {"dtype"}
    assert changed <= resolved.reasons.keys()


def test_the_limits_fit_the_gpu_and_the_memory_is_that_of_the_plan() -> None:
    model = checkpoint("llama-3.1-70b", "FP8", "FP8", layout=Layout(tp=2))
    resolved = resolve(model, BuildOptions(gpu=H100))
    config, memory = resolved.config, resolved.memory
    assert memory is not None
    assert config.max_seq_len
    assert memory == rank_memory(
        model,
        gpu=H100,
        max_batch_size=config.max_batch_size,
        max_num_tokens=config.max_num_tokens,
        max_seq_len=config.max_seq_len,
    )
    assert memory.kv_cache_tokens >= config.max_seq_len
    assert 1 <= config.max_batch_size < 2048


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(LimitError, match="GiB"):
        resolve(checkpoint("llama-3.1-70b"), BuildOptions(gpu=H100))


def test_streamed_weights_need_not_fit() -> None:
    resolved = resolve(checkpoint("llama-3.1-70b"), BuildOptions(gpu=H100, weight_streaming=True))
    assert resolved.memory is None
    assert resolved.config.weight_streaming
    assert "moe_plugin" not in resolved.reasons
    mixture = resolve(checkpoint("mixtral-8x7b"), BuildOptions(weight_streaming=True))
    assert "experts stay" in mixture.reasons["moe_plugin"]


def test_quantization_that_the_gpu_can_not_run_is_refused() -> None:
    for algo, gpu in (("FP8", "A100-80GB"), ("W4A16_AWQ", "B200"), ("NVFP4", "H100-80GB")):
        with pytest.raises(LimitError, match="gpu-"):
            resolve(checkpoint("llama-3.1-8b", algo, group_size=128), BuildOptions(gpu=find(gpu)))


def test_a_gpu_of_which_only_the_generation_is_known_is_held_to_it() -> None:
    resolved = resolve(LLAMA, BuildOptions(gpu=find("sm90")))
    assert resolved.memory is None
    with pytest.raises(LimitError, match="gpu-arithmetic"):
        resolve(checkpoint("llama-3.1-8b", "FP8"), BuildOptions(gpu=find("sm86")))


def test_adapters_say_where_they_go_and_how_large_they_are(tmp_path: Path) -> None:
    first = adapter(tmp_path / "a")
    second = adapter(tmp_path / "b", "mlp.down_proj", "self_attn.o_proj", r=64)
    config = resolve(LLAMA, BuildOptions(lora=(first, second))).config
    lora = config.lora_config
    assert lora.lora_target_modules == ("attn_q", "attn_k", "attn_v", "attn_dense", "mlp_4h_to_h")
    assert (lora.max_lora_rank, lora.lora_dir) == (64, (str(first), str(second)))
    assert config.plugin_config.lora_plugin == "auto"


def test_a_gated_mlp_has_two_modules_by_upstreams_names(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", "mlp.gate_proj", "mlp.up_proj")
    lora = resolve(LLAMA, BuildOptions(lora=(folder,))).config.lora_config
    assert lora.lora_target_modules == ("mlp_h_to_4h", "mlp_gate")


def test_magnitudes_need_their_modules_named(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", use_dora=True)
    with pytest.raises(ModelError, match=r"use_dora True; .* --set lora_target_modules"):
        resolve(LLAMA, BuildOptions(lora=(folder,)))
    config = resolve(LLAMA, BuildOptions(lora=(folder,), lora_target_modules=("attn_q",))).config
    assert config.plugin_config.dora_plugin


def test_named_modules_and_a_stated_rank_beat_the_adapters(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", target_modules="all-linear")
    options = BuildOptions(lora=(folder,), lora_target_modules=("attn_qkv",), max_lora_rank=128)
    lora = resolve(LLAMA, options).config.lora_config
    assert (lora.lora_target_modules, lora.max_lora_rank) == (("attn_qkv",), 128)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"bias": "all"}, "bias 'all'"),
        ({"r": 0}, "r 0"),
        ({"r": None}, "r None"),
    ],
)
def test_an_adapter_that_can_not_be_used_is_named(
    tmp_path: Path, changes: dict[str, Any], found: str
) -> None:
    folder = adapter(tmp_path / "a", **changes)
    with pytest.raises(ModelError) as refused:
        resolve(LLAMA, BuildOptions(lora=(folder,)))
    assert str(folder) in refused.value.what
    assert found in str(refused.value.found)


def test_a_linear_that_the_model_has_no_module_of_is_named(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", "mlp.other")
    with pytest.raises(ModelError, match=r"layers\.3\.mlp\.other; .* --set lora_target_modules"):
        resolve(LLAMA, BuildOptions(lora=(folder,)))


def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a LoRA adapter"):
        resolve(LLAMA, BuildOptions(lora=(tmp_path / "none",)))
    broken = adapter(tmp_path / "broken")
    (broken / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        resolve(LLAMA, BuildOptions(lora=(broken,)))
    (broken / "adapter_config.json").write_text("[]")
    with pytest.raises(ModelError, match="not an object"):
        resolve(LLAMA, BuildOptions(lora=(broken,)))
    empty = adapter(tmp_path / "empty")
    (empty / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        resolve(LLAMA, BuildOptions(lora=(empty,)))


def test_the_drafts_of_a_full_batch_fit_in_a_step() -> None:
    # 8192 tokens a step hold 128 drafts of 63 tokens and the token before each
    medusa = resolve({**HEADS, **MEDUSA}).config
    assert medusa.max_batch_size * 64 <= medusa.max_num_tokens == 8192
    lookahead = {"speculative": "lookahead_decoding", "max_draft_len": 255}
    chosen = resolve(LLAMA, BuildOptions(**lookahead)).config
    assert (chosen.max_batch_size, chosen.max_num_tokens) == (32, 8192)
    asked = resolve(LLAMA, BuildOptions(**lookahead, max_batch_size=64)).config
    assert (asked.max_batch_size, asked.max_num_tokens) == (64, 64 * 256)


def test_what_a_checkpoint_drafts_with_is_read_from_it() -> None:
    resolved = resolve({**HEADS, **EAGLE})
    assert resolved.config.speculative_decoding_mode == "eagle"
    assert resolved.config.max_draft_len == 63
    assert "heads" in resolved.reasons["speculative_decoding_mode"]
    with pytest.raises(LimitError, match="with no draft heads"):
        resolve(HEADS, BuildOptions(speculative="eagle", max_draft_len=63))
    with pytest.raises(LimitError, match="with heads for medusa"):
        resolve({**HEADS, **MEDUSA}, BuildOptions(speculative="eagle"))


def test_short_sequences_lower_the_tokens_of_a_step_and_not_the_drafts() -> None:
    lookahead = {"speculative": "lookahead_decoding", "max_seq_len": 200}
    # 81 drafts of 100 tokens and the token before each, in 8192 tokens a step
    config = resolve(LLAMA, BuildOptions(**lookahead, max_draft_len=100)).config
    assert (config.max_batch_size, config.max_num_tokens) == (64, 8192)
    one = resolve(LLAMA, BuildOptions(**lookahead, max_draft_len=199, max_batch_size=1)).config
    assert (one.max_batch_size, one.max_num_tokens) == (1, 200)
    fewer = resolve(LLAMA, BuildOptions(**lookahead, max_draft_len=199)).config
    assert (fewer.max_batch_size, fewer.max_num_tokens) == (40, 8000)
    with pytest.raises(LimitError, match="a draft must be shorter than max_seq_len"):
        resolve(LLAMA, BuildOptions(**lookahead, max_draft_len=255))


@pytest.mark.parametrize(
    "options",
    [
        {"max_beam_width": 0},
        {"settings": {"max_beam_width": "0"}},
        {"speculative": "lookahead_decoding", "max_draft_len": -1},
        {"max_batch_size": 2**31},
        {"settings": {"opt_num_tokens": "0"}},
    ],
    ids=str,
)
def test_a_number_out_of_range_is_refused_before_anything_is_reckoned_with_it(
    options: dict[str, Any],
) -> None:
    with pytest.raises(LimitError, match="range"):
        resolve(LLAMA, BuildOptions(gpu=H100, **options))


@pytest.mark.parametrize(
    "options", [{"max_lora_rank": 8}, {"settings": {"lora_ckpt_source": "nemo"}}], ids=str
)
def test_what_is_said_of_adapters_that_there_are_not_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(LimitError, match="there are none"):
        resolve(LLAMA, BuildOptions(**options))


def test_why_the_memory_is_not_counted_is_the_true_reason() -> None:
    streamed = resolve(LLAMA, BuildOptions(gpu=H100, weight_streaming=True))
    assert "streamed" in streamed.reasons["max_batch_size"]
    nobodys = resolve({**LLAMA, "architecture": "OursForCausalLM"}, BuildOptions(gpu=H100))
    assert "OursForCausalLM" in nobodys.reasons["max_batch_size"]
    assert "no GPU is named" in resolve(LLAMA).reasons["max_batch_size"]


def test_the_gemm_plugin_is_for_16_bits_before_blackwell() -> None:
    for gpu, plugin in (("A100-80GB", "auto"), ("H100-80GB", "auto"), ("B200", None)):
        resolved = resolve(LLAMA, BuildOptions(gpu=find(gpu)))
        assert resolved.config.plugin_config.gemm_plugin == plugin
        assert "SM 100" in resolved.reasons["gemm_plugin"]
    float32 = resolve(checkpoint("llama-3.1-8b", dtype="float32"))
    assert float32.config.plugin_config.gemm_plugin is None
    assert "16-bit" in float32.reasons["gemm_plugin"]


def test_paths_are_made_absolute_and_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter(Path("ad"))
    Path("model.py").touch()
    Path("drawn").mkdir()
    settings = {"lora_dir": "ad", "model_cls_file": "model.py", "model_cls_name": "Own"}
    config = resolve(
        LLAMA, BuildOptions(settings={**settings, "visualize_network": "drawn"})
    ).config
    assert config.lora_config.lora_dir == (str(tmp_path / "ad"),)
    assert config.command.model_cls_file == str(tmp_path / "model.py")
    assert config.visualize_network == str(tmp_path / "drawn")
    for wrong in ({"model_cls_file": "nosuch.py"}, {"visualize_network": "nosuch"}):
        with pytest.raises(LimitError, match="nosuch"):
            resolve(LLAMA, BuildOptions(settings={**settings, **wrong}))


def test_speculation_without_a_length_is_refused() -> None:
    with pytest.raises(LimitError, match="length of a draft"):
        resolve(LLAMA, BuildOptions(speculative="draft_tokens_external"))


def test_a_longer_context_than_the_model_has_is_refused() -> None:
    with pytest.raises(LimitError, match="made for"):
        resolve(HEADS, BuildOptions(max_seq_len=4097))


def test_a_prompt_longer_than_a_step_needs_chunks() -> None:
    int8 = checkpoint("llama-3.1-8b", "W8A8_SQ_PER_CHANNEL", "INT8")
    resolved = resolve(int8)
    assert resolved.config.max_input_len == resolved.config.max_num_tokens == 8192
    assert "chunks" in resolved.reasons["max_input_len"]
    with pytest.raises(LimitError, match="longest prompt"):
        resolve(int8, BuildOptions(max_input_len=16384))
    assert resolve(LLAMA, BuildOptions(max_input_len=16384)).config.max_input_len == 16384


def test_a_prompt_that_a_step_holds_needs_no_chunks() -> None:
    int8 = checkpoint("llama-2-7b", "W8A8_SQ_PER_CHANNEL", "INT8")
    assert resolve(int8).config.max_input_len == 4095


def test_fp8_products_for_few_sequences_are_the_plugins() -> None:
    fp8 = checkpoint("llama-3.1-8b", "FP8", "FP8")
    few = resolve(fp8, BuildOptions(max_batch_size=4))
    assert few.config.plugin_config.gemm_plugin == "fp8"
    assert "4 sequences" in few.reasons["gemm_plugin"]
    for options in (BuildOptions(max_batch_size=5), BuildOptions()):
        assert resolve(fp8, options).config.plugin_config.gemm_plugin is None


@pytest.mark.parametrize(
    ("algo", "cache", "gpu", "enabled", "why"),
    [
        (None, None, "H100-80GB", False, "isn't FP8"),
        ("FP8", "FP8", "H100-80GB", True, "is FP8 with an FP8 cache"),
        ("FP8", None, "H100-80GB", False, "needs an FP8 cache"),
        ("W8A16", "INT8", "A100-80GB", False, "isn't FP8"),
    ],
)
def test_fp8_attention_is_chosen_by_the_checkpoint(
    algo: str | None, cache: str | None, gpu: str, enabled: bool, why: str
) -> None:
    model = checkpoint("llama-3.1-8b", algo, cache)
    resolved = resolve(model, BuildOptions(gpu=find(gpu)))
    assert resolved.config.plugin_config.use_fp8_context_fmha is enabled
    assert why in resolved.reasons["use_fp8_context_fmha"]


def test_what_costs_without_being_asked_for_is_off() -> None:
    config = resolve(LLAMA).config
    assert not config.plugin_config.multiple_profiles
    assert not config.plugin_config.lora_plugin
    assert not config.gather_context_logits
    assert not config.weight_streaming


def test_an_adapter_larger_than_the_engine_takes_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", r=16)
    with pytest.raises(LimitError, match="rank 16 and max_lora_rank 8"):
        resolve(LLAMA, BuildOptions(lora=(folder,), max_lora_rank=8))


def test_an_adapter_of_rank_one_is_one(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", r=1)
    assert resolve(LLAMA, BuildOptions(lora=(folder,))).config.lora_config.max_lora_rank == 1


def test_an_engines_own_config_is_read_with_what_only_upstream_writes() -> None:
    engine = {
        "max_input_len": 1024,
        "max_seq_len": 2048,
        "max_batch_size": 8,
        "kv_cache_type": "PAGED",
        "speculative_decoding_mode": 4,
        "max_draft_len": 63,
        "auto_parallel_config": {"world_size": 1},
        "plugin_config": {"dtype": "bfloat16", "gemm_plugin": "bfloat16", "multi_block_mode": True},
        "lora_config": {"lora_dir": [], "max_loras": None, "swap_gate_up_proj": True},
    }
    config = BuildConfig.from_json(engine)
    assert (config.speculative_decoding_mode, config.kv_cache_type) == ("medusa", "paged")
    assert config.plugin_config.gemm_plugin == "bfloat16"
    assert config.plugin_config.tokens_per_block == 32
    assert replace(config, max_batch_size=2048).max_num_tokens == 8192


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": "8"},
        {"plugin_config": {"gemm_plugin": 1}},
        {"plugin_config": []},
        {"speculative_decoding_mode": "medusa"},
        {"speculative_decoding_mode": 3},
        {"kv_cache_type": 1},
    ],
    ids=str,
)
def test_a_damaged_engine_config_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError) as refused:
        BuildConfig.from_json(wrong)
    assert refused.value.found
