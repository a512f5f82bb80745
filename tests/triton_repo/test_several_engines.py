from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import peft_adapters
import pytest
from tiny_engine import engine_config, make_engine

from builder.errors import LimitError, OutputError
from builder.lora import read_adapter, write_prefetch
from triton_repo import layout
from triton_repo.contract import MODELS
from triton_repo.layout import Part
from triton_repo.lint import lint
from triton_repo.models.pbtxt import from_text
from triton_repo.settings.options import RepositoryOptions

DRAFTING = {"speculative_decoding_mode": 2, "max_draft_len": 8}
"""Of an engine that verifies drafts; 2 is draft_tokens_external."""


def gpu_engine(folder: Path, *, model: dict[str, Any] | None = None, **build: Any) -> Path:
    engine = make_engine(folder, files=("rank0.engine",), **build)
    if model:
        config = engine_config(**build)
        config["pretrained_config"] |= model
        (engine / "config.json").unlink()
        (engine / "config.json").write_text(json.dumps(config))
    return engine


def parameters(repository: Path, model: str) -> dict[str, str]:
    config = from_text((repository / model / "config.pbtxt").read_text())
    return {name: each.string_value for name, each in config.parameters.items()}


@pytest.fixture
def pair(tmp_path: Path) -> list[Part]:
    return [Part(engine=gpu_engine(tmp_path / name), name=name) for name in ("small", "large")]


def test_each_engine_has_its_own_models_under_its_name(pair: list[Part], tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    layout.write_parts(pair, repository)
    folders = {path.name for path in repository.iterdir() if path.is_dir()}
    assert folders == {f"{name}_{model}" for name in ("small", "large") for model in MODELS}
    for name in ("small", "large"):
        own = f"{name}_tensorrt_llm/1"
        assert parameters(repository, f"{name}_tensorrt_llm")["gpt_model_path"] == own
        assert os.path.samefile(tmp_path / name / "rank0.engine", repository / own / "rank0.engine")
        for model in ("ensemble", "tensorrt_llm_bls"):
            found = parameters(repository, f"{name}_{model}")
            assert found["tensorrt_llm_model_name"] == f"{name}_tensorrt_llm"
            assert found["tokenizer_dir"] == found["gpt_model_path"] == own


def test_a_repository_of_several_says_what_each_serves(pair: list[Part], tmp_path: Path) -> None:
    layout.write_parts(pair, tmp_path / "repo")
    served = layout.describe(tmp_path / "repo")
    assert [each.name for each in served.engines] == ["small", "large"]
    assert [each.prefix for each in served.engines] == ["small_", "large_"]
    assert served.engines[1].models["ensemble"] == "large_ensemble"
    assert served.engines[1].engine_dir == tmp_path / "repo" / "large_tensorrt_llm" / "1"
    assert (served.name, served.max_batch_size) == ("small", 8)


def test_a_repository_of_one_has_upstreams_names(tmp_path: Path) -> None:
    layout.write_repository(gpu_engine(tmp_path / "engine"), tmp_path / "repo")
    (served,) = layout.describe(tmp_path / "repo").engines
    assert served.prefix == ""
    assert served.models == {model: model for model in MODELS}


def test_engines_of_one_gpu_share_its_memory(pair: list[Part], tmp_path: Path) -> None:
    layout.write_parts(pair, tmp_path / "repo")
    name = "kv_cache_free_gpu_mem_fraction"
    assert parameters(tmp_path / "repo", "small_tensorrt_llm")[name] == "0.45"
    assert parameters(tmp_path / "repo", "large_tensorrt_llm")[name] == "0.45"


def test_engines_of_different_gpus_do_not(pair: list[Part], tmp_path: Path) -> None:
    options = RepositoryOptions(gpu_device_ids=((1,),))
    parts = [pair[0], Part(engine=pair[1].engine, name="large", options=options)]
    layout.write_parts(parts, tmp_path / "repo")
    written = parameters(tmp_path / "repo", "large_tensorrt_llm")
    assert "kv_cache_free_gpu_mem_fraction" not in written


def test_more_than_all_memory_of_a_gpu_is_refused(pair: list[Part], tmp_path: Path) -> None:
    options = RepositoryOptions(kv_cache_free_gpu_mem_fraction=0.8)
    parts = [Part(engine=part.engine, name=part.name, options=options) for part in pair]
    with pytest.raises(LimitError, match=r"engines on GPU 0 .* found .* 0\.8 \+ 0\.8"):
        layout.write_parts(parts, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("names", "said"), [(("a", "a"), "a twice"), (("a", "b/c"), "letters, digits")]
)
def test_names_that_clash_or_are_no_folders_are_refused(
    pair: list[Part], tmp_path: Path, names: tuple[str, str], said: str
) -> None:
    parts = [Part(engine=part.engine, name=name) for part, name in zip(pair, names, strict=True)]
    with pytest.raises(LimitError, match=said):
        layout.write_parts(parts, tmp_path / "repo")


def test_engines_of_two_targets_are_refused(pair: list[Part], tmp_path: Path) -> None:
    parts = [pair[0], Part(engine=make_engine(tmp_path / "cpu"), name="cpu")]
    with pytest.raises(LimitError, match="found openvino and tensorrt-llm"):
        layout.write_parts(parts, tmp_path / "repo")


def test_same_engines_same_bytes_and_a_finished_one_is_skipped(
    pair: list[Part], tmp_path: Path
) -> None:
    one = layout.write_parts(pair, tmp_path / "one")
    assert one.files == layout.write_parts(pair, tmp_path / "two").files
    before = (tmp_path / "one" / "trtbuild.json").stat().st_mtime_ns
    layout.write_parts(pair, tmp_path / "one")
    assert (tmp_path / "one" / "trtbuild.json").stat().st_mtime_ns == before
    layout.write_parts(pair[::-1], tmp_path / "one")
    assert (tmp_path / "one" / "trtbuild.json").stat().st_mtime_ns != before


def test_one_engine_that_fails_leaves_nothing(pair: list[Part], tmp_path: Path) -> None:
    bad = Part(engine=pair[1].engine, name="bad", options=RepositoryOptions(max_beam_width=4))
    with pytest.raises(LimitError, match="max_beam_width"):
        layout.write_parts([pair[0], bad], tmp_path / "repo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "small"]


def test_a_full_disk_is_refused_before_copying(
    pair: list[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.stat("/proc").st_dev
    stat = Path.stat

    def elsewhere(path: Path, **options: Any) -> Any:
        found = stat(path, **options)
        if path != pair[0].engine:
            return found
        return os.stat_result([*found[:2], other, *found[3:]])

    def full(place: Path, needed_bytes: int) -> None:
        raise OutputError(f"{needed_bytes} bytes are needed at {place}")

    monkeypatch.setattr(Path, "stat", elsewhere)
    monkeypatch.setattr("builder.artifact.require_space", full)
    size_bytes = sum(
        stat(path).st_size
        for path in pair[0].engine.rglob("*")
        if path.is_file() and path.name != "trtbuild.json"
    )
    with pytest.raises(OutputError, match=f"{size_bytes} bytes are needed"):
        layout.write_parts(pair, tmp_path / "repo")


def test_a_draft_is_a_model_beside_the_engines(tmp_path: Path) -> None:
    engine, draft = gpu_engine(tmp_path / "engine", **DRAFTING), gpu_engine(tmp_path / "draft")
    layout.write_parts([Part(engine=engine, name="chat", draft=draft)], tmp_path / "repo")
    repository = tmp_path / "repo"
    assert {path.name for path in repository.iterdir() if path.is_dir()} == {
        *MODELS,
        "tensorrt_llm_draft",
    }
    assert parameters(repository, "tensorrt_llm_draft")["gpt_model_path"] == "tensorrt_llm_draft/1"
    bls = parameters(repository, "tensorrt_llm_bls")
    assert bls["tensorrt_llm_draft_model_name"] == "tensorrt_llm_draft"
    assert bls["tensorrt_llm_model_name"] == "tensorrt_llm"
    (served,) = layout.describe(repository).engines
    assert served.models["draft"] == "tensorrt_llm_draft"
    assert lint(repository) == ()


@pytest.mark.parametrize(
    ("build", "model", "said"),
    [
        ({}, {}, "can't verify drafts; found speculative_decoding_mode none, max_draft_len 0"),
        (DRAFTING, {"vocab_size": 100}, "vocabulary must be the same; found .*100 tokens"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(
    tmp_path: Path, build: dict[str, Any], model: dict[str, Any], said: str
) -> None:
    engine = gpu_engine(tmp_path / "engine", **build)
    draft = gpu_engine(tmp_path / "draft", model=model)
    with pytest.raises(LimitError, match=said):
        layout.write_parts([Part(engine=engine, draft=draft)], tmp_path / "repo")


def test_an_engine_called_as_anothers_draft_is_refused(tmp_path: Path) -> None:
    engine, draft = gpu_engine(tmp_path / "engine", **DRAFTING), gpu_engine(tmp_path / "draft")
    parts = [
        Part(engine=engine, name="chat", draft=draft),
        Part(engine=draft, name="chat_draft"),
    ]
    with pytest.raises(LimitError, match="the name of another's draft; found chat_draft"):
        layout.write_parts(parts, tmp_path / "repo")


def test_instances_on_a_cpu_need_no_gpus(tmp_path: Path) -> None:
    options = RepositoryOptions(tensorrt_llm_instance_count=2)
    layout.write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo", options=options)


def test_another_version_is_in_another_folder(tmp_path: Path) -> None:
    layout.write_repository(gpu_engine(tmp_path / "engine"), tmp_path / "repo", version=3)
    assert parameters(tmp_path / "repo", "tensorrt_llm")["gpt_model_path"] == "tensorrt_llm/3"
    for model in MODELS:
        assert [p.name for p in (tmp_path / "repo" / model).iterdir() if p.is_dir()] == ["3"]
    assert layout.describe(tmp_path / "repo").engine_dir == tmp_path / "repo" / "tensorrt_llm" / "3"
    assert lint(tmp_path / "repo") == ()


TINY = {
    "architecture": "LlamaForCausalLM",
    "dtype": "float16",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_size": 4,
    "hidden_act": "silu",
    "vocab_size": 320,
    "position_embedding_type": "rope_gpt_neox",
}
WITH_LORA = {
    "lora_config": {"lora_target_modules": ["attn_dense"], "max_lora_rank": 8},
}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    linear = "model.layers.0.self_attn.o_proj"
    return peft_adapters.by_hand(tmp_path / "poet", {linear: (8, 8)}, target_modules=["o_proj"])


def test_adapters_are_written_as_upstream_loads_them(tmp_path: Path, adapter: Path) -> None:
    engine = gpu_engine(tmp_path / "engine", model=TINY, **WITH_LORA)
    layout.write_repository(engine, tmp_path / "repo", adapters={"poet": adapter, "bard": adapter})
    folder = tmp_path / "repo" / parameters(tmp_path / "repo", "tensorrt_llm")["lora_prefetch_dir"]
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    config = np.load(folder / "2" / "model.lora_config.npy")
    # module attn_dense is 4; layer 0; the adapter's rank
    assert config.reshape(-1, 3).tolist() == [[4, 0, 2]]
    assert config.dtype == np.int32
    weights = np.load(folder / "1" / "model.lora_weights.npy")
    assert (weights.dtype, weights.shape[-1]) == (np.float16, 2 * (8 + 8))
    assert layout.describe(tmp_path / "repo").engines[0].adapters == {"poet": 1, "bard": 2}
    assert lint(tmp_path / "repo", files=False) == ()


def test_adapters_that_upstream_misreads_are_refused_and_found(tmp_path: Path) -> None:
    """Two heads of 4 on a hidden size of 12: upstream takes attn_dense for 12 by 12."""
    linear = "model.layers.0.self_attn.o_proj"
    adapter = peft_adapters.by_hand(tmp_path / "poet", {linear: (8, 12)})
    wide = {**TINY, "hidden_size": 12}
    engine = gpu_engine(tmp_path / "engine", model=wide, **WITH_LORA)
    with pytest.raises(LimitError, match=r"misreads adapters .*; found attn_dense in poet"):
        layout.write_repository(engine, tmp_path / "repo", adapters={"poet": adapter})
    assert not (tmp_path / "repo").exists()
    options = RepositoryOptions(lora_prefetch_dir=str(tmp_path / "loaded"))
    layout.write_repository(engine, tmp_path / "repo", options=options)
    write_prefetch(tmp_path / "loaded", {7: read_adapter(adapter)}, wide)
    (found,) = lint(tmp_path / "repo", files=False)
    assert (found.file, found.found) == (f"{tmp_path}/loaded/7", "an adapter of attn_dense")
    np.save(tmp_path / "loaded" / "7" / "model.lora_config.npy", np.zeros(3, np.int32))
    (found,) = lint(tmp_path / "repo", files=False)
    assert found.do == "write the adapter again"
    (tmp_path / "loaded" / "7" / "model.lora_config.npy").write_bytes(b"?")
    (found,) = lint(tmp_path / "repo", files=False)
    assert found.do == "write the adapter again"


@pytest.mark.parametrize(
    ("model", "build", "options", "said"),
    [
        (TINY, {}, {}, "--lora needs an engine for LoRA adapters"),
        ({**TINY, "dtype": "bfloat16"}, WITH_LORA, {}, "only into float16 engines; found bfloat16"),
        (TINY, WITH_LORA, {"lora_prefetch_dir": "/adapters"}, "not from both"),
    ],
)
def test_adapters_that_the_engine_cannot_load_are_refused(
    tmp_path: Path, adapter: Path, model: Any, build: Any, options: Any, said: str
) -> None:
    engine = gpu_engine(tmp_path / "engine", model=model, **build)
    with pytest.raises(LimitError, match=said):
        layout.write_repository(
            engine,
            tmp_path / "repo",
            options=RepositoryOptions(**options),
            adapters={"poet": adapter},
        )
