"""Promise: every field of an engine has its place in the LLM API, or is said to be lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_files import FIELDS

from builder.errors import ArtifactError, LimitError, OutputError
from builder.limits import LimitOptions
from builder.limits import plan as limits_of
from builder.manifest import Manifest
from builder.migrate import Migration, migrate, plan
from builder.migrate.fields import ROWS
from builder.migrate.parameters import PARAMETERS
from builder.migrate.quantization import INSTEAD, RECIPES
from builder.migrate.row import Fate
from builder.targets.llmapi.setting import names
from builder.targets.llmapi.settings import MODEL_YAML
from builder.targets.openvino import engine_config
from quantize.recipes import RECIPES as OURS
from triton_repo.contract import contract

KNOWN = dict(names(MODEL_YAML))
NAMED = {row.name for row in ROWS}


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BUILD_CONFIG = words("""
    max_input_len max_seq_len opt_batch_size max_batch_size max_beam_width max_num_tokens
    opt_num_tokens max_prompt_embedding_table_size kv_cache_type gather_context_logits
    gather_generation_logits strongly_typed force_num_profiles profiling_verbosity
    enable_debug_output max_draft_len speculative_decoding_mode use_refit input_timing_cache
    output_timing_cache weight_sparsity weight_streaming use_strip_plan max_encoder_input_len
    dry_run visualize_network monitor_memory use_mrope
    lora_config.lora_dir lora_config.lora_ckpt_source lora_config.max_lora_rank
    lora_config.lora_target_modules lora_config.trtllm_modules_to_hf_modules
    lora_config.max_loras lora_config.max_cpu_loras
""")
"""Fields of TensorRT-LLM 1.2's BuildConfig (builder.py) and its LoraConfig (lora_helper.py)."""

PLUGIN_CONFIG = words("""
    dtype bert_attention_plugin gpt_attention_plugin gemm_plugin gemm_swiglu_plugin
    fp8_rowwise_gemm_plugin qserve_gemm_plugin identity_plugin nccl_plugin lora_plugin dora_plugin
    weight_only_groupwise_quant_matmul_plugin weight_only_quant_matmul_plugin smooth_quant_plugins
    smooth_quant_gemm_plugin layernorm_quantization_plugin rmsnorm_quantization_plugin
    quantize_per_token_plugin quantize_tensor_plugin moe_plugin mamba_conv1d_plugin
    low_latency_gemm_plugin low_latency_gemm_swiglu_plugin gemm_allreduce_plugin context_fmha
    bert_context_fmha_fp32_acc paged_kv_cache remove_input_padding norm_quant_fusion reduce_fusion
    user_buffer tokens_per_block use_paged_context_fmha use_fp8_context_fmha fuse_fp4_quant
    multiple_profiles paged_state streamingllm manage_weights use_fused_mlp pp_reduce_scatter
""")
"""Fields of its PluginConfig (plugin/plugin.py)."""

MAPPING = words("world_size tp_size pp_size cp_size moe_tp_size moe_ep_size gpus_per_node")

DEFAULTS: dict[str, Any] = {
    "max_input_len": 128,
    "max_seq_len": 256,
    "max_batch_size": 8,
    "max_beam_width": 1,
    "max_num_tokens": 64,
    "kv_cache_type": "PAGED",
    "gather_context_logits": False,
    "gather_generation_logits": False,
    "speculative_decoding_mode": 1,
    "max_draft_len": 0,
    "weight_streaming": False,
    "lora_config": {"lora_dir": [], "max_lora_rank": 64, "lora_target_modules": []},
}
Engine = Callable[..., Path]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Writes an engine's config.json as trtllm-build leaves it: nothing of ours beside it."""

    def write(
        build: dict[str, Any] | None = None,
        plugins: dict[str, Any] | None = None,
        **pretrained: Any,
    ) -> Path:
        folder = tmp_path / "an engine"
        folder.mkdir(exist_ok=True)
        model = {
            "architecture": "LlamaForCausalLM",
            "num_hidden_layers": FIELDS["num_hidden_layers"],
            "num_attention_heads": FIELDS["num_attention_heads"],
            "hidden_size": FIELDS["hidden_size"],
            "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
            "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
            **pretrained,
        }
        config = {
            "version": "1.2.1",
            "pretrained_config": model,
            "build_config": {**DEFAULTS, **(build or {}), "plugin_config": plugins or {}},
        }
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


def fate(migration: Migration, field: str) -> Fate:
    [found] = [each.fate for each in migration.outcomes if each.field == field]
    return found


def told(migration: Migration, field: str) -> str:
    [found] = [each.text for each in migration.outcomes if each.field == field]
    return found


def test_every_field_of_a_build_has_a_row() -> None:
    assert not {f"build_config.{name}" for name in BUILD_CONFIG} - NAMED
    assert not {f"build_config.plugin_config.{name}" for name in PLUGIN_CONFIG} - NAMED
    assert not {f"pretrained_config.mapping.{name}" for name in MAPPING} - NAMED


def test_every_field_of_our_own_builds_has_a_row() -> None:
    from builder.targets.tensorrt_llm.config import BuildConfig

    ours = BuildConfig().to_json()
    plugins, lora = ours.pop("plugin_config"), ours.pop("lora_config")
    fields = [*ours, *(f"plugin_config.{name}" for name in plugins)]
    fields += [f"lora_config.{name}" for name in lora]
    assert len(fields) > 60
    assert not {f"build_config.{name}" for name in fields} - NAMED


def test_every_parameter_of_the_triton_model_has_a_row() -> None:
    known = {row.name for row in PARAMETERS}
    assert not set(contract("tensorrt_llm").parameters) - known


def test_what_is_kept_is_a_setting_and_what_is_lost_says_what_to_do() -> None:
    for row in (*ROWS, *PARAMETERS):
        if row.fate is Fate.KEPT:
            assert row.setting in KNOWN, row.name
        elif row.fate is not Fate.UNUSED:
            assert row.text, row.name
        for name in re.findall(r"--set ([\w.]+)", row.text):
            assert name in KNOWN, row.name


def test_a_recipe_that_is_named_makes_what_it_is_named_for() -> None:
    assert {algorithm: OURS[recipe].quant_algo for algorithm, recipe in RECIPES.items()} == {
        algorithm: algorithm for algorithm in RECIPES
    }
    assert {recipe for recipe, _ in INSTEAD.values()} <= OURS.keys()


def test_every_field_that_the_engine_has_is_accounted_for(
    engine: Engine, tiny_folder: Path
) -> None:
    built = {name: None for name in BUILD_CONFIG if "." not in name} | DEFAULTS
    found = plan(
        engine(built, dict.fromkeys(PLUGIN_CONFIG), dtype="bfloat16", some={"thing": 1}),
        tiny_folder,
    )
    fields = [each.field for each in found.outcomes]
    assert len(fields) == len(set(fields))
    assert set(fields) == {
        *(f"build_config.{name}" for name in built if name != "lora_config"),
        *(f"build_config.lora_config.{name}" for name in DEFAULTS["lora_config"]),
        *(f"build_config.plugin_config.{name}" for name in PLUGIN_CONFIG),
        *(f"pretrained_config.mapping.{name}" for name in ("world_size", "tp_size", "pp_size")),
        "pretrained_config.quantization.quant_algo",
        "pretrained_config.quantization.kv_cache_quant_algo",
        "pretrained_config.some.thing",
        "pretrained_config.dtype",
        "pretrained_config.architecture",
        "pretrained_config.num_hidden_layers",
        "pretrained_config.num_attention_heads",
        "pretrained_config.hidden_size",
    }


def test_a_field_of_another_version_is_said_to_be_unknown(
    engine: Engine, tiny_folder: Path
) -> None:
    found = plan(engine({"builder_opt": 4}, {"lookup_plugin": "auto"}), tiny_folder)
    assert fate(found, "build_config.builder_opt") is Fate.LOST
    assert fate(found, "build_config.plugin_config.lookup_plugin") is Fate.UNNEEDED


def test_limits_and_ranks_are_kept(engine: Engine, tiny_folder: Path, tmp_path: Path) -> None:
    folder = engine(mapping={"world_size": 4, "tp_size": 2, "pp_size": 2, "moe_ep_size": -1})
    made = migrate(plan(folder, tiny_folder), tmp_path / "out")
    read = yaml.safe_load((tmp_path / "out" / "model.yaml").read_text())
    assert made.about["name"] == "an engine"
    assert (read["tensor_parallel_size"], read["pipeline_parallel_size"]) == (2, 2)
    assert (read["max_batch_size"], read["max_seq_len"], read["max_num_tokens"]) == (8, 256, 64)
    assert "moe_expert_parallel_size" not in read
    assert "max_beam_width" not in read


def test_limits_that_the_model_cant_hold_are_lowered_and_said_to_be(
    engine: Engine, tiny_folder: Path
) -> None:
    found = plan(engine({"max_seq_len": 300, "max_batch_size": 2048}), tiny_folder)
    assert found.resolved.settings["max_seq_len"] == 256
    assert found.resolved.settings["max_batch_size"] == 64
    assert "as many as the model" in told(found, "build_config.max_seq_len")
    assert "max_num_tokens" in told(found, "build_config.max_batch_size")


def test_experts_and_block_length_are_kept(engine: Engine, tiny_folder: Path) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    config |= {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4}
    (tiny_folder / "config.json").write_text(json.dumps(config))
    mapping = {"tp_size": 4, "pp_size": 1, "moe_tp_size": 2, "moe_ep_size": 2}
    found = plan(engine({}, {"tokens_per_block": 64}, mapping=mapping), tiny_folder)
    settings = found.resolved.settings
    assert settings["moe_expert_parallel_size"] == settings["moe_tensor_parallel_size"] == 2
    assert settings["kv_cache_config"]["tokens_per_block"] == 64


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("weight_streaming", True, "more GPUs"),
        ("weight_sparsity", True, "dense"),
        ("max_prompt_embedding_table_size", 512, "trtllm-serve"),
        ("kv_cache_type", "DISABLED", "encode_only"),
        ("plugin_config.dora_plugin", True, "merge"),
        ("plugin_config.streamingllm", True, "max_attention_window"),
    ],
)
def test_what_has_no_equivalent_is_lost_with_what_to_do(
    engine: Engine, tiny_folder: Path, field: str, value: Any, said: str
) -> None:
    build = {field: value} if "." not in field else {}
    plugins = {field.partition(".")[2]: value} if "." in field else {}
    found = plan(engine(build, plugins), tiny_folder)
    assert [each.field for each in found.with_fate(Fate.LOST)] == [f"build_config.{field}"]
    assert said in told(found, f"build_config.{field}")


def test_what_is_off_is_not_reported_as_lost(engine: Engine, tiny_folder: Path) -> None:
    assert not plan(engine(), tiny_folder).with_fate(Fate.LOST)


def test_logits_of_the_prompt_are_the_requests_choice(engine: Engine, tiny_folder: Path) -> None:
    found = plan(engine({"gather_context_logits": True}), tiny_folder)
    assert not found.with_fate(Fate.LOST)
    assert "return_context_logits" in told(found, "build_config.gather_context_logits")


def test_logits_of_the_answer_and_beams_are_kept(engine: Engine, tiny_folder: Path) -> None:
    found = plan(engine({"gather_generation_logits": True, "max_beam_width": 4}), tiny_folder)
    assert found.resolved.settings["gather_generation_logits"] is True
    assert found.resolved.settings["max_beam_width"] == 4


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (2, "decoding_type=Draft_Target"),
        ("draft_tokens_external", "decoding_type=Draft_Target"),
        (4, "Medusa's heads"),
        (8, "decoding_type=NGram"),
        (16, "ReDrafter"),
        (32, "EAGLE 3"),
        (64, "no equivalent"),
    ],
)
def test_speculative_decoding_is_lost_with_the_way_to_go(
    engine: Engine, tiny_folder: Path, mode: int | str, said: str
) -> None:
    found = plan(engine({"speculative_decoding_mode": mode, "max_draft_len": 5}), tiny_folder)
    lost = {each.field for each in found.with_fate(Fate.LOST)}
    assert lost == {"build_config.speculative_decoding_mode", "build_config.max_draft_len"}
    assert said in told(found, "build_config.speculative_decoding_mode")
    assert "max_draft_len=5" in told(found, "build_config.max_draft_len")
    assert "speculative_config" not in found.resolved.settings


def test_speculative_decoding_chosen_anew_keeps_the_drafts_length(
    engine: Engine, tiny_folder: Path
) -> None:
    chosen = {"speculative_config.decoding_type": "NGram"}
    folder = engine({"speculative_decoding_mode": 8, "max_draft_len": 5})
    found = plan(folder, tiny_folder, settings=chosen)
    assert found.resolved.settings["speculative_config"] == {
        "decoding_type": "NGram",
        "max_draft_len": 5,
    }
    assert not found.with_fate(Fate.LOST)
    longer = plan(folder, tiny_folder, settings={**chosen, "speculative_config.max_draft_len": "7"})
    assert longer.resolved.settings["speculative_config"]["max_draft_len"] == 7


def test_speculative_decoding_chosen_as_a_whole_object_is_seen(
    engine: Engine, tiny_folder: Path
) -> None:
    chosen = {"speculative_config": '{"decoding_type": "NGram", "max_draft_len": 3}'}
    folder = engine({"speculative_decoding_mode": 8, "max_draft_len": 5})
    found = plan(folder, tiny_folder, settings=chosen)
    assert not found.with_fate(Fate.LOST)
    assert "--set has NGram" in told(found, "build_config.speculative_decoding_mode")
    assert '"max_draft_len": 3' in told(found, "build_config.max_draft_len")
    assert found.resolved.settings["speculative_config"]["max_draft_len"] == 3


@pytest.mark.parametrize(
    ("built", "folder", "kept"),
    [
        ("float16", "bfloat16", "float16"),
        ("bfloat16", "bfloat16", None),
        # the LLM API would compute it in bfloat16
        ("float32", "float32", "float32"),
    ],
)
def test_the_engines_dtype_is_kept_where_the_model_folders_is_another(
    engine: Engine, tiny_folder: Path, built: str, folder: str, kept: str | None
) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    (tiny_folder / "config.json").write_text(json.dumps(config | {"torch_dtype": folder}))
    found = plan(engine(dtype=built), tiny_folder)
    assert found.resolved.settings.get("dtype") == kept
    assert fate(found, "pretrained_config.dtype") is (Fate.KEPT if kept else Fate.UNNEEDED)


@pytest.mark.parametrize(
    ("build", "plugins", "more"),
    [
        ({"max_batch_size": 8, "max_num_tokens": "8"}, {}, {}),
        ({"max_seq_len": "128"}, {}, {}),
        ({}, {"lora_plugin": ["auto"]}, {}),
        ({}, {}, {"quantization": {"quant_algo": ["FP8"]}}),
        ({"lora_config": {"lora_dir": [1]}}, {"lora_plugin": "auto"}, {}),
    ],
)
def test_a_field_of_a_wrong_type_is_never_a_crash(
    engine: Engine,
    tiny_folder: Path,
    build: dict[str, Any],
    plugins: dict[str, Any],
    more: dict[str, Any],
) -> None:
    with suppress(LimitError):
        plan(engine(build, plugins, **more), tiny_folder)


def test_an_engine_or_its_model_is_never_written_over(
    engine: Engine, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = engine()
    made = Manifest(kind="engine", made_by={}, source={}, options={"target": "tensorrt-llm"})
    made.write(folder)
    found = plan(folder, tiny_folder)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, folder / ".." / folder.name, folder / "in", tmp_path / "link", tmp_path):
        with pytest.raises(OutputError, match="an engine, which is read"):
            migrate(found, out)
    for out in (tiny_folder, tiny_folder / "in"):
        with pytest.raises(OutputError, match="which is read, in its place"):
            migrate(found, out)
    (tmp_path / "link").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_adapters_go_along_with_a_copy(engine: Engine, tiny_folder: Path, tmp_path: Path) -> None:
    folder = engine({"lora_config": {"lora_dir": ["lora/0"]}}, {"lora_plugin": "float16"})
    adapter = folder / "lora" / "0"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    made = migrate(plan(folder, tiny_folder, copy=True), tmp_path / "out")
    assert made.options["settings"]["lora_config"]["lora_dir"] == ["lora/0/0"]
    assert "lora/0/0/adapter_config.json" in made.files
    shutil.rmtree(folder)
    assert (tmp_path / "out/lora/0/0/adapter_config.json").read_text() == "{}"


def test_adapters_are_kept_with_their_folders(engine: Engine, tiny_folder: Path) -> None:
    lora = {"lora_dir": ["lora/0"], "max_lora_rank": 8, "lora_target_modules": ["attn_q"]}
    folder = engine({"lora_config": lora}, {"lora_plugin": "float16"})
    (folder / "lora" / "0").mkdir(parents=True)
    planned = plan(folder, tiny_folder).resolved
    assert any(str(folder / "lora" / "0") in note for note in planned.notes)
    found = planned.settings
    assert found["enable_lora"] is True
    assert found["lora_config"] == {
        "lora_dir": [str(folder / "lora" / "0")],
        "max_lora_rank": 8,
        "lora_target_modules": ["attn_q"],
    }


def test_without_adapters_nothing_of_them_is_set(engine: Engine, tiny_folder: Path) -> None:
    found = plan(engine({}, {"lora_plugin": None}), tiny_folder)
    assert not {"enable_lora", "lora_config"} & found.resolved.settings.keys()


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        ("FP8", "--recipe fp8"),
        ("NVFP4", "--recipe nvfp4"),
        ("W4A16_AWQ", "--recipe int4_awq"),
        ("W8A8_SQ_PER_CHANNEL", "no INT8 SmoothQuant"),
        ("W8A8_SQ_PER_TENSOR_PLUGIN", "no INT8 SmoothQuant"),
        ("W4A16_GPTQ", "doesn't load GPTQ"),
        ("W8A16", "weight-only"),
        ("SOMETHING", "doesn't know"),
    ],
)
def test_quantized_weights_are_the_model_folders_to_have(
    engine: Engine, tiny_folder: Path, algorithm: str, said: str
) -> None:
    found = plan(engine(quantization={"quant_algo": algorithm}), tiny_folder)
    [lost] = found.with_fate(Fate.LOST)
    assert said in lost.text
    assert f"trtbuild quantize {tiny_folder} --hf" in lost.text


def test_a_model_folder_quantized_as_the_engine_was_loses_nothing(
    engine: Engine, tiny_folder: Path
) -> None:
    stated = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tiny_folder / "hf_quant_config.json").write_text(json.dumps(stated))
    folder = engine(quantization={"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"})
    found = plan(folder, tiny_folder)
    assert not found.with_fate(Fate.LOST)
    assert found.resolved.settings["kv_cache_config"]["dtype"] == "fp8"
    assert "the model folder's scales" in told(
        found, "pretrained_config.quantization.kv_cache_quant_algo"
    )


def test_an_int8_cache_is_lost(engine: Engine, tiny_folder: Path) -> None:
    found = plan(engine(quantization={"kv_cache_quant_algo": "INT8"}), tiny_folder)
    [lost] = found.with_fate(Fate.LOST)
    assert "kv_cache_config.dtype=fp8" in lost.text


def test_runtime_defaults_are_kept(engine: Engine, tiny_folder: Path) -> None:
    cache = {"max_attention_window": [128, 256], "sink_token_length": 4}
    found = plan(engine(runtime_defaults={"kv_cache_config": cache}), tiny_folder)
    assert found.resolved.settings["kv_cache_config"]["max_attention_window"] == [128, 256]
    [lost] = found.with_fate(Fate.LOST)
    assert lost.field.endswith("sink_token_length")


def test_parameters_of_the_triton_model_are_kept(engine: Engine, tiny_folder: Path) -> None:
    given = {
        "kv_cache_free_gpu_mem_fraction": "0.6",
        "batch_scheduler_policy": "max_utilization",
        "enable_chunked_context": "true",
        "enable_kv_cache_reuse": "False",
        "max_attention_window_size": "4096,1024",
        "max_tokens_in_paged_kv_cache": "",
        "gpt_model_type": "inflight_fused_batching",
        "lora_cache_host_memory_bytes": "1024",
        "decoding_mode": "top_k_top_p",
        "normalize_log_probs": "true",
        "no_such_parameter": "1",
    }
    found = plan(engine(), tiny_folder, parameters=given)
    settings = found.resolved.settings
    assert settings["kv_cache_config"] == {
        "enable_block_reuse": False,
        "max_attention_window": [4096, 1024],
        "free_gpu_memory_fraction": 0.6,
    }
    assert settings["scheduler_config"] == {"capacity_scheduler_policy": "MAX_UTILIZATION"}
    assert settings["enable_chunked_prefill"] is True
    assert settings["peft_cache_config"] == {"host_cache_size": 1024}
    assert fate(found, "parameters.max_tokens_in_paged_kv_cache") is Fate.UNUSED
    lost = {each.field for each in found.with_fate(Fate.LOST)}
    assert lost == {"parameters.normalize_log_probs", "parameters.no_such_parameter"}
    assert {each.field for each in found.outcomes} >= {f"parameters.{name}" for name in given}


def test_what_the_user_sets_beats_what_the_engine_says(engine: Engine, tiny_folder: Path) -> None:
    found = plan(engine(), tiny_folder, settings={"max_batch_size": "4"})
    assert found.resolved.settings["max_batch_size"] == 4
    assert told(found, "build_config.max_batch_size") == "--set has 4"
    with pytest.raises(LimitError, match="no setting max_bach_size"):
        plan(engine(), tiny_folder, settings={"max_bach_size": "4"})


def test_another_model_is_refused(engine: Engine, tiny_folder: Path) -> None:
    with pytest.raises(ArtifactError, match="num_hidden_layers 2 where the engine has 32"):
        plan(engine(num_hidden_layers=32), tiny_folder)


def test_a_folder_that_isnt_an_engine_is_refused(
    engine: Engine, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"no config\.json with pretrained_config"):
        plan(tiny_folder, tiny_folder)
    migrate(plan(engine(), tiny_folder), tmp_path / "out")
    with pytest.raises(ArtifactError, match="a folder for the LLM API; it needs no migration"):
        plan(tmp_path / "out", tiny_folder)


def test_a_rehearsal_on_a_cpu_leaves_its_memory_behind(tiny_folder: Path, tmp_path: Path) -> None:
    checkpoint = {
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "head_size": 16,
        "max_position_embeddings": 256,
    }
    config = engine_config(checkpoint, limits_of(checkpoint, LimitOptions(max_batch_size=2)))
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    Manifest(
        kind="engine",
        made_by={},
        source={},
        options={"target": "openvino"},
        about={"name": "smol"},
    ).write(folder)
    found = plan(folder, tiny_folder)
    assert found.name == "smol"
    assert found.resolved.settings["max_batch_size"] == 2
    assert "max_tokens" not in found.resolved.settings["kv_cache_config"]
    assert not found.with_fate(Fate.LOST)


def test_an_object_that_the_user_sets_whole_is_theirs(engine: Engine, tiny_folder: Path) -> None:
    folder = engine({}, {"tokens_per_block": 64})
    found = plan(folder, tiny_folder, settings={"kv_cache_config": '{"dtype": "fp8"}'})
    assert found.resolved.settings["kv_cache_config"] == {"dtype": "fp8"}
    assert "--set has" in told(found, "build_config.plugin_config.tokens_per_block")
