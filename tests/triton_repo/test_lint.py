from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import upstream_template
from tiny_engine import make_engine

from builder.errors import ArtifactError
from triton_repo import layout
from triton_repo.layout import Part
from triton_repo.lint import Finding, lint
from triton_repo.models.pbtxt import from_text, to_text


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return make_engine(tmp_path / "engine", files=("rank0.engine",))


@pytest.fixture
def upstreams(engine: Path, tmp_path: Path) -> Path:
    """A repository that upstream's templates make, filled in so that it loads."""
    return upstream_template.write(tmp_path / "repo", upstream_template.places(engine))


@pytest.fixture
def ours(engine: Path, tmp_path: Path) -> Path:
    layout.write_repository(engine, tmp_path / "ours")
    return tmp_path / "ours"


def errors(repository: Path) -> list[Finding]:
    return [each for each in lint(repository) if each.severity == "error"]


def edit(repository: Path, model: str, change: Callable[[Any], object]) -> None:
    file = repository / model / "config.pbtxt"
    config = from_text(file.read_text())
    change(config)
    # a new file: the old one may be a link into an engine
    file.unlink()
    file.write_text(to_text(config))


def set_parameter(name: str, value: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config.parameters[name].string_value = value

    return change


def test_a_repository_of_ours_has_nothing_wrong(ours: Path) -> None:
    assert lint(ours) == ()


def test_upstreams_templates_filled_in_have_no_errors(upstreams: Path) -> None:
    assert errors(upstreams) == []


def test_what_upstreams_templates_leave_unset_is_listed_once_a_file(upstreams: Path) -> None:
    left = {each.file: each.found for each in lint(upstreams) if "not filled in" in each.found}
    assert left.keys() == {
        f"{model}/config.pbtxt"
        for model in ("preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls")
    }
    # of 45 parameters two are constants and three are filled in
    assert left["tensorrt_llm/config.pbtxt"].startswith("40 not filled in")
    assert "kv_cache_free_gpu_mem_fraction" in left["tensorrt_llm/config.pbtxt"]


def test_upstreams_slip_of_an_output_declared_twice_is_a_warning(upstreams: Path) -> None:
    twice = [each for each in lint(upstreams) if each.found == "declared 2 times"]
    assert [(each.file, each.field, each.severity) for each in twice] == [
        ("ensemble/config.pbtxt", "output kv_cache_alloc_total_blocks", "warning")
    ]


def test_a_template_nobody_filled_in_is_read_and_every_place_named(tmp_path: Path) -> None:
    repository = upstream_template.write(tmp_path / "raw", {})
    found = {(each.file, each.field) for each in errors(repository)}
    engine_file = "tensorrt_llm/config.pbtxt"
    assert {
        (engine_file, "triton_max_batch_size"),
        (engine_file, "decoupled_mode"),
        (engine_file, "max_queue_size"),
        (engine_file, "logits_datatype"),
        (engine_file, "backend"),
        (engine_file, "parameters.gpt_model_type"),
        (engine_file, "parameters.gpt_model_path"),
        ("preprocessing/config.pbtxt", "preprocessing_instance_count"),
        ("preprocessing/config.pbtxt", "parameters.tokenizer_dir"),
        ("postprocessing/config.pbtxt", "postprocessing_instance_count"),
        ("tensorrt_llm_bls/config.pbtxt", "bls_instance_count"),
        ("ensemble/config.pbtxt", "triton_max_batch_size"),
    } <= found
    assert all("filled" in each.do or "fill" in each.do for each in errors(repository))


def _path(name: str, value: str) -> tuple[str, Callable[[Any], None], str, str]:
    model = "preprocessing" if name == "tokenizer_dir" else "tensorrt_llm"
    return model, set_parameter(name, value), f"parameters.{name}", value


def _clear(config: Any) -> None:
    del config.parameters["guided_decoding_backend"]


def _rename(config: Any) -> None:
    config.input[0].name = "input_idz"


def _kind_gpu(config: Any) -> None:
    config.instance_group[0].kind = 1


def _count(number: int) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config.instance_group[0].count = number

    return change


def _batch(number: int) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config.max_batch_size = number

    return change


def _dims(config: Any) -> None:
    del config.input[0].dims[:]
    config.input[0].dims.extend((2, 3))


def _type(name: str, number: int) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for tensor in (*config.input, *config.output):
            if tensor.name == name:
                tensor.data_type = number

    return change


def _coupled(config: Any) -> None:
    config.model_transaction_policy.decoupled = False


def _map(model: str, side: str, name: str, joined: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for step in config.ensemble_scheduling.step:
            if step.model_name == model:
                getattr(step, side)[name] = joined

    return change


def _unmap(model: str, name: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for step in config.ensemble_scheduling.step:
            if step.model_name == model:
                del step.input_map[name]

    return change


UINT8, INT32, FP16 = 2, 8, 10


@pytest.mark.parametrize(
    ("model", "change", "field", "found"),
    [
        _path("gpt_model_path", "/nowhere/engine"),
        _path("tokenizer_dir", "elsewhere"),
        _path("lora_prefetch_dir", "/nowhere/adapters"),
        _path("xgrammar_tokenizer_info_path", "info.json"),
        ("tensorrt_llm", _clear, "parameters.guided_decoding_backend", "nothing"),
        ("tensorrt_llm", _batch(9), "max_batch_size", "9"),
        ("tensorrt_llm", _batch(4), "max_batch_size", "8"),
        ("postprocessing", _batch(0), "max_batch_size", "0"),
        ("postprocessing", _count(2), "instance_group.count", "2"),
        ("preprocessing", _kind_gpu, "instance_group.kind", "KIND_GPU"),
        ("tensorrt_llm", _dims, "input input_ids dims", "[2, 3]"),
        ("tensorrt_llm", _type("seed", INT32), "input seed data_type", "TYPE_INT32"),
        ("tensorrt_llm", _type("context_logits", FP16), "context_logits data_type", "TYPE_FP16"),
        ("tensorrt_llm_bls", _coupled, "model_transaction_policy.decoupled", "false"),
        (
            "tensorrt_llm_bls",
            set_parameter("tensorrt_llm_draft_model_name", "drafts"),
            "parameters.tensorrt_llm_draft_model_name",
            "drafts",
        ),
        ("tensorrt_llm", _rename, "step tensorrt_llm input_map input_ids", "_INPUT_ID"),
        (
            "ensemble",
            _map("preprocessing", "input_map", "QUERY", "text_inputs"),
            "step preprocessing input_map QUERY",
            "text_inputs",
        ),
        (
            "ensemble",
            _map("postprocessing", "output_map", "OUTPUTS", "text"),
            "step postprocessing output_map OUTPUTS",
            "text",
        ),
        (
            "ensemble",
            _map("tensorrt_llm", "input_map", "temperature", "top_k"),
            "step tensorrt_llm input_map temperature",
            "top_k",
        ),
        (
            "ensemble",
            _unmap("tensorrt_llm", "request_output_len"),
            "step tensorrt_llm input_map request_output_len",
            "nothing",
        ),
        (
            "tensorrt_llm",
            set_parameter("batch_scheduler_policy", "no_evict"),
            "parameters.batch_scheduler_policy",
            "no_evict",
        ),
        (
            "tensorrt_llm",
            set_parameter("gpt_model_type", "V1"),
            "parameters.gpt_model_type",
            "V1",
        ),
        (
            "tensorrt_llm",
            set_parameter("kv_cache_free_gpu_mem_fraction", "90"),
            "parameters.kv_cache_free_gpu_mem_fraction",
            "90",
        ),
        (
            "tensorrt_llm",
            set_parameter("max_beam_width", "4"),
            "parameters.max_beam_width",
            "4",
        ),
        (
            "tensorrt_llm",
            set_parameter("gpu_device_ids", "0,1"),
            "parameters.gpu_device_ids",
            "2",
        ),
        (
            "tensorrt_llm",
            set_parameter("decoding_mode", "medusa"),
            "parameters.decoding_mode",
            "build_config.speculative_decoding_mode none",
        ),
        (
            "tensorrt_llm",
            set_parameter("guided_decoding_backend", "xgrammar"),
            "parameters.xgrammar_tokenizer_info_path",
            "nothing",
        ),
        (
            "tensorrt_llm",
            set_parameter("kv_cache_host_memory_bytes", "many"),
            "parameters.kv_cache_host_memory_bytes",
            "many",
        ),
    ],
)
def test_an_error_is_found_and_says_where(
    upstreams: Path, model: str, change: Callable[[Any], object], field: str, found: str
) -> None:
    edit(upstreams, model, change)
    there = [each for each in errors(upstreams) if field in each.field and found in each.found]
    assert there, [(each.file, each.field, each.found) for each in lint(upstreams)]
    assert all(each.do for each in there)


def _priorities(config: Any) -> None:
    config.dynamic_batching.priority_levels = 2


def _endless(config: Any) -> None:
    config.dynamic_batching.default_queue_policy.max_queue_size = 0


def _no_group(config: Any) -> None:
    del config.instance_group[:]


@pytest.mark.parametrize(
    ("model", "change", "field"),
    [
        ("preprocessing", _priorities, "dynamic_batching.priority_levels"),
        ("tensorrt_llm", _endless, "max_queue_size"),
        ("tensorrt_llm_bls", _count(1), "instance_group.count"),
        ("preprocessing", _no_group, "instance_group"),
        ("postprocessing", set_parameter("skip_tokens", "1"), "parameters.skip_tokens"),
        ("tensorrt_llm", _rename, "input input_idz"),
        (
            "tensorrt_llm",
            set_parameter("max_attention_window_size", "512"),
            "parameters.max_attention_window_size",
        ),
        ("preprocessing", set_parameter("tokenizer_dir", "org/model-1.5"), "tokenizer_dir"),
    ],
)
def test_what_only_hurts_is_a_warning(
    upstreams: Path, model: str, change: Callable[[Any], object], field: str
) -> None:
    edit(upstreams, model, change)
    assert [
        each.severity
        for each in lint(upstreams)
        if each.file.startswith(model) and field in each.field
    ] == ["warning"]


def test_an_engine_that_nobody_can_stream_from_is_a_warning(upstreams: Path) -> None:
    for model in ("tensorrt_llm", "tensorrt_llm_bls"):
        edit(upstreams, model, _coupled)
    assert [
        (each.file, each.severity) for each in lint(upstreams) if "decoupled" in each.field
    ] == [("tensorrt_llm/config.pbtxt", "warning")]


def test_what_upstreams_models_take_is_no_error(upstreams: Path) -> None:
    edit(upstreams, "preprocessing", set_parameter("add_special_tokens", "yes"))
    for model in ("tensorrt_llm", "tensorrt_llm_bls"):
        edit(upstreams, model, _coupled)
    edit(upstreams, "postprocessing", _count(2))
    assert errors(upstreams) == []


def test_a_near_miss_of_a_parameter_is_told(upstreams: Path) -> None:
    edit(upstreams, "tensorrt_llm", set_parameter("enable_kv_cache_reuze", "true"))
    assert "is enable_kv_cache_reuse meant?" in {each.do for each in lint(upstreams)}


def test_folders_and_files_that_are_not_there_are_named(upstreams: Path, engine: Path) -> None:
    (upstreams / "preprocessing" / "1" / "model.py").unlink()
    (upstreams / "ensemble" / "1").rmdir()
    (upstreams / "stray").mkdir()
    (engine / "rank0.engine").unlink()
    (engine / "tokenizer.json").unlink()
    (engine / "tokenizer_config.json").unlink()
    found = {(each.file, each.field, each.found) for each in errors(upstreams)}
    assert {
        ("preprocessing/1", "model.py", "no file"),
        ("ensemble", "version folder", "none"),
        ("stray/config.pbtxt", "", "no file"),
        (
            "tensorrt_llm/config.pbtxt",
            "parameters.gpt_model_path",
            f"{engine} has no rank0.engine",
        ),
        (
            "postprocessing/config.pbtxt",
            "parameters.tokenizer_dir",
            f"no tokenizer in {engine}",
        ),
    } <= found


def test_reuse_needs_paged_context_attention(tmp_path: Path) -> None:
    engine = make_engine(
        tmp_path / "plain",
        files=("rank0.engine",),
        plugin_config={"use_paged_context_fmha": False},
    )
    values = upstream_template.places(engine, enable_kv_cache_reuse="true")
    repository = upstream_template.write(tmp_path / "repo", values)
    (found,) = errors(repository)
    assert found.field == "parameters.enable_kv_cache_reuse"
    assert found.found == "plugin_config.use_paged_context_fmha false"


def test_engines_that_want_all_memory_of_one_gpu_are_told(upstreams: Path) -> None:
    (upstreams / "tensorrt_llm").rename(upstreams / "spare")
    edit(upstreams, "spare", lambda config: setattr(config, "name", "tensorrt_llm"))
    (upstreams / "tensorrt_llm" / "1").mkdir(parents=True)
    text = (upstreams / "spare" / "config.pbtxt").read_text()
    (upstreams / "tensorrt_llm" / "config.pbtxt").write_text(text)
    edit(upstreams, "spare", lambda config: setattr(config, "name", "spare"))
    (found,) = errors(upstreams)
    assert found.found == "0.9 (spare) + 0.9 (tensorrt_llm)"
    for model, part in (("spare", "0.3"), ("tensorrt_llm", "0.6")):
        edit(upstreams, model, set_parameter("kv_cache_free_gpu_mem_fraction", part))
    assert errors(upstreams) == []
    edit(upstreams, "spare", set_parameter("kv_cache_free_gpu_mem_fraction", "0.9"))
    edit(upstreams, "spare", set_parameter("gpu_device_ids", "1"))
    assert errors(upstreams) == []


def test_everything_is_reported_at_once_errors_first(upstreams: Path) -> None:
    for model, change in (
        ("postprocessing", _count(3)),
        ("preprocessing", _priorities),
        ("tensorrt_llm", set_parameter("gpt_model_path", "/nowhere")),
    ):
        edit(upstreams, model, change)
    (upstreams / "tensorrt_llm_bls" / "config.pbtxt").write_text("max_batch_sise: 3")
    found = lint(upstreams)
    said = " ".join(each.found for each in found)
    assert "max_batch_sise" in said
    assert "/nowhere" in said
    assert [each.severity for each in found] == sorted(each.severity for each in found)
    assert {each.severity for each in found} == {"error", "warning"}


def test_a_file_of_ours_that_changed_is_named_with_all_others(ours: Path) -> None:
    (ours / "preprocessing" / "1" / "model.py").write_text("print()")
    (ours / "tensorrt_llm" / "1" / "tokenizer.json").unlink()
    found = {each.file: each.found for each in errors(ours)}
    assert found["preprocessing/1/model.py"] == "another size than it was written with"
    assert found["tensorrt_llm/1/tokenizer.json"] == "no file"


def test_the_file_of_the_tokenizer_is_looked_into(ours: Path) -> None:
    file = ours / "tensorrt_llm" / "1" / "xgrammar_tokenizer_info.json"
    file.write_text(json.dumps({"encoded_vocab": [], "stop_token_ids": []}))
    assert ("tokenizer_str", "nothing") in {(each.field, each.found) for each in errors(ours)}


def test_a_folder_without_models_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a model repository"):
        lint(tmp_path)
    with pytest.raises(ArtifactError, match="no such folder"):
        lint(tmp_path / "none")


def test_several_engines_in_one_repository_have_nothing_wrong(tmp_path: Path) -> None:
    engines = [make_engine(tmp_path / name, files=("rank0.engine",)) for name in "ab"]
    parts = [Part(engine=path, name=path.name) for path in engines]
    layout.write_parts(parts, tmp_path / "repo")
    assert lint(tmp_path / "repo") == ()
