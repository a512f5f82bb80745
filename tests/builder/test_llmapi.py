"""Promise: the target llmapi writes a folder that TensorRT-LLM's LLM API can load, or says why not.

TensorRT-LLM itself isn't here: what is held is the folder's form, its files and its settings.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_files import FIELDS

from builder import artifact, manifest
from builder.convert import convert
from builder.errors import CorruptFileError, LimitError, ModelError, OutputError
from builder.manifest import Manifest
from builder.targets.llmapi import LlmApiOptions, build, render, resolve

SETTINGS = {
    "kv_cache_config.dtype": "fp8",
    "guided_decoding_backend": "xgrammar",
    "speculative_config.decoding_type": "NGram",
    "speculative_config.max_draft_len": "4",
    "speculative_config.draft_len_schedule": '{"2": 4, "8": 1}',
    "revision": "null ",
    "custom_tokenizer": "1e3",
    "otlp_traces_endpoint": "on",
    "env_overrides": '{"A": "no", "B": "0x1F", "Ü": "# :"}',
}
"""With texts that YAML would take for something else."""


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def options(**settings: str) -> LlmApiOptions:
    return LlmApiOptions(
        settings={name.replace("__", "."): typed for name, typed in settings.items()}
    )


def test_a_yaml_parser_reads_back_what_was_set(tiny_folder: Path) -> None:
    found = resolve(tiny_folder, LlmApiOptions(max_batch_size=16, settings=SETTINGS))
    read = yaml.safe_load(found.text("a name"))
    assert read == found.settings
    assert read["env_overrides"] == {"A": "no", "B": "0x1F", "Ü": "# :"}
    assert read["speculative_config"]["draft_len_schedule"] == {2: 4, 8: 1}
    assert (read["max_batch_size"], read["kv_cache_config"]["dtype"]) == (16, "fp8")


def test_the_file_has_what_tritons_llmapi_model_reads(tiny_folder: Path) -> None:
    read = yaml.safe_load(render(tiny_folder))
    triton = read.pop("triton_config")
    assert triton == {
        "max_batch_size": 0,
        "decoupled": True,
        "cancellation_check_period_ms": 100,
    }
    assert read["model"] == str(tiny_folder)
    assert read["backend"] == "pytorch"
    assert read["trust_remote_code"] is False


def test_the_options_are_settings_and_set_beats_them(tiny_folder: Path) -> None:
    chosen = LlmApiOptions(
        tp=2,
        pp=2,
        max_batch_size=4,
        max_seq_len=128,
        max_num_tokens=64,
        kv_fraction=0.5,
        settings={"max_batch_size": "8", "pipeline_parallel_size": "1"},
    )
    found = resolve(tiny_folder, chosen).settings
    assert found["tensor_parallel_size"] == 2
    assert found["pipeline_parallel_size"] == 1
    assert (found["max_batch_size"], found["max_seq_len"], found["max_num_tokens"]) == (8, 128, 64)
    assert found["kv_cache_config"]["free_gpu_memory_fraction"] == 0.5


def test_prompts_longer_than_a_step_are_computed_in_chunks(tiny_folder: Path) -> None:
    short = resolve(tiny_folder, LlmApiOptions(max_num_tokens=256, max_batch_size=8))
    long = resolve(tiny_folder, LlmApiOptions(max_num_tokens=128, max_batch_size=8))
    assert "enable_chunked_prefill" not in short.settings
    assert long.settings["enable_chunked_prefill"] is True
    assert "256 tokens and a step computes 128" in long.reasons["enable_chunked_prefill"]
    assert long.limits["max_input_len"] == 255
    off = LlmApiOptions(
        max_num_tokens=128, max_batch_size=8, settings={"enable_chunked_prefill": "false"}
    )
    assert resolve(tiny_folder, off).limits["max_input_len"] == 128


def test_float32_is_computed_in_bfloat16(tiny_folder: Path, tmp_path: Path) -> None:
    assert "dtype" not in resolve(tiny_folder).settings
    edit(tiny_folder, torch_dtype="float32")
    made = build(tiny_folder, tmp_path / "engine")
    assert made.options["settings"]["dtype"] == made.about["dtype"] == "bfloat16"
    assert resolve(tiny_folder, options(dtype="float16")).settings["dtype"] == "float16"


def test_the_limits_are_tensorrt_llms_where_nobody_says(tiny_folder: Path) -> None:
    assert resolve(tiny_folder).limits == {
        "max_batch_size": 2048,
        "max_seq_len": 256,
        "max_input_len": 255,
        "max_num_tokens": 8192,
        "max_beam_width": 1,
    }


def test_a_referenced_model_stays_where_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    made = build(tiny_folder, tmp_path / "engine")
    assert set(made.files) == {
        "model.yaml",
        "generation_config.json",
        *(p.name for p in tiny_folder.iterdir() if p.name.startswith("tokenizer")),
        *(p.name for p in tiny_folder.iterdir() if p.name.startswith("special")),
    }
    assert made.options["model"] == "reference"
    assert made.about["model_path"] == str(tiny_folder)
    artifact.verify(tmp_path / "engine", made)
    generation = json.loads((tmp_path / "engine" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": FIELDS["eos_token_id"]}


def test_a_copy_is_the_model_itself_as_links(tiny_folder: Path, tmp_path: Path) -> None:
    made = build(tiny_folder, tmp_path / "engine", options=LlmApiOptions(copy=True))
    weights = tmp_path / "engine" / "model.safetensors"
    assert weights.samefile(tiny_folder / "model.safetensors")
    assert yaml.safe_load((tmp_path / "engine" / "model.yaml").read_text())["model"] == "."
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(made.files)
    artifact.verify(tmp_path / "engine", made)
    moved = shutil.move(tmp_path / "engine", tmp_path / "moved")
    assert build(tiny_folder, moved, options=LlmApiOptions(copy=True)).files == made.files


def test_a_hubs_cache_gives_its_files_and_not_its_links(tiny_folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--Tiny-1B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for path in tiny_folder.iterdir():
        (snapshot / path.name).symlink_to(path)
    made = build(snapshot, tmp_path / "engine", options=LlmApiOptions(copy=True))
    assert made.about["name"] == "Tiny-1B"
    assert not any(path.is_symlink() for path in (tmp_path / "engine").iterdir())
    artifact.verify(tmp_path / "engine", made)


def test_pickles_and_readmes_are_not_copied(tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "README.md", "modeling_tiny.py", "preprocessor_config.json"):
        (tiny_folder / name).write_text("{}")
    made = build(tiny_folder, tmp_path / "engine", options=LlmApiOptions(copy=True))
    assert {"modeling_tiny.py", "preprocessor_config.json"} <= set(made.files)
    assert not {"pytorch_model.bin", "README.md"} & set(made.files)


def test_the_same_inputs_make_the_same_bytes(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = LlmApiOptions(max_batch_size=8, settings=SETTINGS)
    one = build(tiny_folder, tmp_path / "one", options=chosen, name="n")
    two = build(tiny_folder, tmp_path / "two", options=chosen, name="n")
    assert one == two
    assert (tmp_path / "one/model.yaml").read_bytes() == (tmp_path / "two/model.yaml").read_bytes()


def test_what_is_there_already_is_left_and_what_changed_is_made_anew(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "engine"
    build(tiny_folder, out)
    before = (out / "model.yaml").stat().st_ino
    build(tiny_folder, out)
    assert (out / "model.yaml").stat().st_ino == before
    edit(tiny_folder, rope_theta=20000.0)
    build(tiny_folder, out)
    assert (out / "model.yaml").stat().st_ino != before


def test_a_quantized_folder_of_ours_is_known_by_its_manifest(
    tiny_folder: Path, tmp_path: Path
) -> None:
    quantization = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tiny_folder / "hf_quant_config.json").write_text(json.dumps(quantization))
    files = artifact.Staging(tiny_folder).entries()
    Manifest(
        kind="hf_checkpoint", made_by={}, source={}, options={}, about={"name": "tiny"}, files=files
    ).write(tiny_folder)
    made = build(tiny_folder, tmp_path / "engine", options=LlmApiOptions(copy=True))
    assert (made.about["name"], made.about["quant_algo"]) == ("tiny", "FP8")
    assert made.files["model.safetensors"] == files["model.safetensors"]
    assert made.source == manifest.identity(tiny_folder)
    artifact.verify(tmp_path / "engine", made)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (LlmApiOptions(tp=3), "4 attention heads"),
        (LlmApiOptions(pp=3), "2 layers"),
        (LlmApiOptions(tp=2, moe_ep=2), "leave moe_expert_parallel_size out"),
        (LlmApiOptions(tp=3), "choose a tensor_parallel_size that"),
        (LlmApiOptions(pp=3), "choose a pipeline_parallel_size of at most 2"),
        (options(context_parallel_size="3"), "choose a context_parallel_size and tensor_par"),
        (LlmApiOptions(max_seq_len=257), "ask for at most 256"),
        (LlmApiOptions(kv_fraction=1.5), "free_gpu_memory_fraction"),
        (LlmApiOptions(max_batch_size=0), "max_batch_size"),
        (LlmApiOptions(settings={"model": "other"}), "the folder that is given"),
    ],
)
def test_what_doesnt_fit_the_model_is_refused(
    tiny_folder: Path, tmp_path: Path, chosen: LlmApiOptions, said: str
) -> None:
    with pytest.raises(LimitError, match=said):
        build(tiny_folder, tmp_path / "engine", options=chosen)
    assert not (tmp_path / "engine").exists()


def test_with_attention_data_parallelism_heads_arent_divided(tiny_folder: Path) -> None:
    found = resolve(tiny_folder, options(tensor_parallel_size="8", enable_attention_dp="true"))
    assert found.settings["tensor_parallel_size"] == 8


def test_experts_are_divided_evenly(tiny_folder: Path) -> None:
    edit(tiny_folder, architectures=["MixtralForCausalLM"], num_local_experts=8)
    assert (
        resolve(tiny_folder, LlmApiOptions(tp=4, moe_ep=4)).settings["moe_expert_parallel_size"]
        == 4
    )
    edit(tiny_folder, num_local_experts=6)
    with pytest.raises(LimitError, match="6 experts"):
        resolve(tiny_folder, LlmApiOptions(tp=4, moe_ep=4))


@pytest.mark.parametrize(
    ("rope", "longest"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 1024),
        ({"type": "dynamic", "factor": 2}, 512),
        ({"rope_type": "yarn", "factor": 4.0}, 256),
        ({"rope_type": "llama3", "factor": 8.0}, 256),
        ({"rope_type": "longrope", "factor": 8.0}, 256),
        (None, 256),
    ],
)
def test_the_context_is_what_the_pytorch_backend_infers(
    tiny_folder: Path, rope: dict[str, Any] | None, longest: int
) -> None:
    edit(tiny_folder, rope_scaling=rope)
    assert resolve(tiny_folder).limits["max_seq_len"] == longest


def test_an_unknown_architecture_is_taken_and_said_to_be(tiny_folder: Path) -> None:
    edit(tiny_folder, architectures=["NewestForCausalLM"])
    found = resolve(tiny_folder, LlmApiOptions(tp=2))
    assert "NewestForCausalLM isn't known to trtbuild" in found.notes[0]
    with pytest.raises(LimitError, match="4 attention heads"):
        resolve(tiny_folder, LlmApiOptions(tp=3))
    edit(tiny_folder, architectures=["GptOssForCausalLM"])
    assert "PyTorch backend runs it" in resolve(tiny_folder).notes[0]


def test_a_model_of_several_modalities_is_read_by_its_text(tiny_folder: Path) -> None:
    inner = {key: FIELDS[key] for key in FIELDS if key != "architectures"}
    outer = {"architectures": ["Qwen3VLForConditionalGeneration"], "text_config": inner}
    (tiny_folder / "config.json").write_text(json.dumps(outer))
    assert resolve(tiny_folder).limits["max_seq_len"] == 256
    with pytest.raises(LimitError, match="4 attention heads"):
        resolve(tiny_folder, LlmApiOptions(tp=3))


def test_a_models_own_code_is_never_run_without_a_word(tiny_folder: Path) -> None:
    edit(tiny_folder, auto_map={"AutoConfig": "configuration_x.XConfig"})
    found = resolve(tiny_folder)
    assert found.settings["trust_remote_code"] is False
    assert any("--set trust_remote_code=true" in note for note in found.notes)
    trusted = resolve(tiny_folder, options(trust_remote_code="true"))
    assert trusted.settings["trust_remote_code"] is True
    assert any("read it first" in note for note in trusted.notes)


@pytest.mark.parametrize("line", ["\n", "\r", "\x85", "\u2028"])
def test_a_models_name_for_itself_cant_add_a_setting(tiny_folder: Path, line: str) -> None:
    edit(tiny_folder, architectures=[f"X{line}trust_remote_code: true"])
    read = yaml.safe_load(render(tiny_folder, name=f"n{line}trust_remote_code: true"))
    assert read["trust_remote_code"] is False


def test_settings_that_upstream_may_change_are_named(tiny_folder: Path) -> None:
    notes = resolve(tiny_folder, options(enable_in_graph_sampling="true")).notes
    assert notes == ("prototype in TensorRT-LLM, so it may change: enable_in_graph_sampling",)


def test_a_draft_model_that_is_here_is_found_from_anywhere(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    chosen = {
        "speculative_config.decoding_type": "Eagle3",
        "speculative_config.max_draft_len": "3",
    }
    name = "speculative_config.speculative_model"
    here = resolve(tiny_folder, LlmApiOptions(settings={**chosen, name: tiny_folder.name}))
    assert here.settings["speculative_config"]["speculative_model"] == str(tiny_folder)
    hub = resolve(tiny_folder, LlmApiOptions(settings={**chosen, name: "org/draft"}))
    assert hub.settings["speculative_config"]["speculative_model"] == "org/draft"


def test_an_adapter_must_be_there(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="an adapter that isn't there"):
        resolve(tiny_folder, options(lora_config__lora_dir=str(tmp_path / "none")))
    found = resolve(tiny_folder, options(lora_config__lora_dir=str(tmp_path)))
    assert found.settings["lora_config"] == {"lora_dir": [str(tmp_path)]}


def test_adapters_are_part_of_what_the_folder_is_made_of(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "style"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"1")
    chosen = LlmApiOptions(copy=True, settings={"lora_config.lora_dir": str(adapter)})
    made = build(tiny_folder, tmp_path / "engine", options=chosen)
    name = "lora/0/style/adapter_model.safetensors"
    assert made.options["settings"]["lora_config"]["lora_dir"] == ["lora/0/style"]
    assert (tmp_path / "engine" / name).samefile(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.safetensors").write_bytes(b"22")
    assert build(tiny_folder, tmp_path / "engine", options=chosen).files[name].size_bytes == 2
    stays = resolve(tiny_folder, LlmApiOptions(settings=chosen.settings))
    assert any(
        f"stay where they are (--copy takes them along): {adapter}" in n for n in stays.notes
    )


def test_what_is_read_is_never_written_over(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "lora"
    adapter.mkdir()
    lora = LlmApiOptions(settings={"lora_config.lora_dir": str(adapter)})
    before = sorted(tmp_path.rglob("*"))
    for out in (tiny_folder, tiny_folder / "in", tmp_path, adapter, adapter / "in"):
        with pytest.raises(OutputError, match="which is read, in its place"):
            build(tiny_folder, out, options=lora)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_was_built_is_not_sent_to_migrate(tiny_folder: Path, tmp_path: Path) -> None:
    build(tiny_folder, tmp_path / "engine", options=LlmApiOptions(copy=True))
    with pytest.raises(ModelError, match="a folder for the LLM API, which trtbuild built") as error:
        resolve(tmp_path / "engine")
    assert "migrate" not in str(error.value)


def test_the_versions_that_take_the_settings_are_recorded(
    tiny_folder: Path, tmp_path: Path
) -> None:
    made = build(tiny_folder, tmp_path / "a", options=options(sampler_type="auto"))
    assert made.about["tensorrt_llm"] == {"since": "1.2", "until": "1.4"}


def test_a_checkpoint_needs_no_conversion_here(tiny_folder: Path, tmp_path: Path) -> None:
    convert(tiny_folder, tmp_path / "ckpt")
    with pytest.raises(ModelError, match="a checkpoint that trtbuild made; no conversion is"):
        resolve(tmp_path / "ckpt")
    (tmp_path / "ckpt" / manifest.NAME).unlink()
    with pytest.raises(ModelError, match="a TensorRT-LLM checkpoint; no conversion is needed"):
        resolve(tmp_path / "ckpt")


def test_an_engine_is_sent_to_migrate(tmp_path: Path) -> None:
    fields = {"version": "1.2.1", "pretrained_config": {}, "build_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=r"a TensorRT-LLM engine; .*trtbuild migrate"):
        resolve(tmp_path)


def test_a_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for path in (tmp_path / "m.gguf", tmp_path):
        with pytest.raises(ModelError, match=r"a GGUF file; .*give the original model"):
            resolve(path)


def test_a_folder_that_isnt_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder"):
        resolve(tmp_path / "none")


def test_weights_that_are_cut_short_are_seen_without_reading_them(tiny_folder: Path) -> None:
    path = tiny_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CorruptFileError, match="truncated"):
        resolve(tiny_folder)


def test_a_missing_shard_and_a_missing_tensor_are_named(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / "a.safetensors")
    index = tiny_folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "b.safetensors"}}))
    with pytest.raises(ModelError, match=r"no b\.safetensors"):
        resolve(tiny_folder)
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    with pytest.raises(ModelError, match=r"places the tensor x in a\.safetensors"):
        resolve(tiny_folder)
    index.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(ModelError, match="is not whole"):
        resolve(tiny_folder)


def test_pickles_alone_are_refused(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        resolve(tiny_folder)


def test_a_folder_without_a_tokenizer_is_refused(tiny_folder: Path) -> None:
    (tiny_folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        resolve(tiny_folder)


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
    ],
)
def test_quantizations_that_the_backend_loads_are_named(
    tiny_folder: Path, stated: dict[str, Any], found: str
) -> None:
    edit(tiny_folder, quantization_config=stated)
    assert resolve(tiny_folder).model.quantization == found


@pytest.mark.parametrize(
    "stated",
    [
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "bitsandbytes"},
        {"quant_method": "fp8"},
        {"quant_method": "modelopt", "quant_algo": "W8A8_SQ_PER_CHANNEL"},
    ],
)
def test_quantizations_that_it_doesnt_load_are_refused(
    tiny_folder: Path, stated: dict[str, Any]
) -> None:
    edit(tiny_folder, quantization_config=stated)
    with pytest.raises(ModelError, match="trtbuild quantize MODEL --hf FOLDER"):
        resolve(tiny_folder)
