"""Promise: `trtbuild migrate` says what becomes of an engine, and writes it for the LLM API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from builder.errors import ArtifactError, OutputError
from trtbuild.commands.migrate import migrate

TEMPLATE = """
name: "tensorrt_llm"
parameters: { key: "kv_cache_free_gpu_mem_fraction" value: { string_value: "0.7" } }
parameters: { key: "sink_token_length" value: { string_value: "4" } }
parameters: { key: "decoding_mode" value: { string_value: "${decoding_mode}" } }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Hugging Face folder with a weights file that holds no tensor."""
    folder = tmp_path / "model"
    folder.mkdir()
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    config = {
        "version": "1.2.1",
        "pretrained_config": {"num_hidden_layers": 2, "mapping": {"tp_size": 2, "pp_size": 1}},
        "build_config": {
            "max_batch_size": 8,
            "max_seq_len": 128,
            "weight_streaming": True,
            "plugin_config": {"gemm_plugin": "auto"},
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(migrate, [*map(str, arguments)], catch_exceptions=False)


def test_the_report_names_what_is_kept_and_what_is_lost(
    engine: Path, model: Path, tmp_path: Path
) -> None:
    result = run(engine, "--model", model, "-o", tmp_path / "out")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert any("mapping.tp_size" in line and "tensor_parallel_size = 2" in line for line in lines)
    [lost] = [number for number, line in enumerate(lines) if line.startswith("lost")]
    assert "weight_streaming = true" in lines[lost]
    assert lines[lost + 1].lstrip().startswith("→ weights stay in")
    assert "take more GPUs" in lines[lost + 1]
    assert "4 kept, 1 lost: see what to do" in lines
    assert "gemm_plugin" in result.output
    assert (tmp_path / "out" / "model.yaml").is_file()


def test_the_engine_is_not_a_place_to_write_to(engine: Path, model: Path) -> None:
    before = (engine / "config.json").read_bytes()
    for out in (engine, f"{engine}/../{engine.name}"):
        with pytest.raises(OutputError, match="which is read, in its place"):
            run(engine, "--model", model, "-o", out)
    assert (engine / "config.json").read_bytes() == before


def test_json_has_every_field_with_its_fate(engine: Path, model: Path, tmp_path: Path) -> None:
    result = run(engine, "--model", model, "-o", tmp_path / "out", "--name", "chat", "--json")
    report: dict[str, Any] = json.loads(result.output)
    assert (report["name"], report["path"]) == ("chat", str(tmp_path / "out"))
    assert report["settings"]["tensor_parallel_size"] == 2
    assert {each["field"]: each["fate"] for each in report["fields"]} == {
        "pretrained_config.num_hidden_layers": "not needed",
        "pretrained_config.mapping.tp_size": "kept",
        "pretrained_config.mapping.pp_size": "kept",
        "build_config.max_batch_size": "kept",
        "build_config.max_seq_len": "kept",
        "build_config.weight_streaming": "lost",
        "build_config.plugin_config.gemm_plugin": "not needed",
    }


def test_a_dry_run_writes_nothing(engine: Path, model: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    result = run(engine, "--model", model, "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert set(tmp_path.iterdir()) == before
    assert run(engine, "--model", model, "--dry-run").output == result.output


def test_a_place_is_asked_for(engine: Path, model: Path) -> None:
    result = run(engine, "--model", model)
    assert result.exit_code == 2
    assert "Missing option '-o'" in result.output


def test_the_repositorys_parameters_come_along(engine: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "repo" / "tensorrt_llm" / "config.pbtxt"
    path.parent.mkdir(parents=True)
    path.write_text(TEMPLATE)
    repository = tmp_path / "repo"
    result = run(engine, "--model", model, "--repo", repository, "--dry-run", "--json")
    report = json.loads(result.output)
    cache = report["settings"]["kv_cache_config"]
    assert cache["free_gpu_memory_fraction"] == 0.7
    fates = {each["field"]: each["fate"] for each in report["fields"]}
    assert fates["parameters.sink_token_length"] == "lost"
    assert "parameters.decoding_mode" not in fates


def test_a_folder_without_an_engine_model_is_refused(
    engine: Path, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="has no engine model"):
        run(engine, "--model", model, "--repo", tmp_path, "--dry-run")


def test_settings_and_a_copy_are_taken(engine: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(engine, "--model", model, "-o", out, "--copy", "--set", "tensor_parallel_size=1")
    assert "tensor_parallel_size: 1" in (out / "model.yaml").read_text()
    assert (out / "model.safetensors").samefile(model / "model.safetensors")
