from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tiny_engine import make_engine

from builder import digest, manifest
from builder.errors import ArtifactError, LimitError
from triton_repo import layout
from triton_repo.contract import MODELS
from triton_repo.settings.options import RepositoryOptions


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return make_engine(tmp_path / "engine")


@pytest.fixture
def repository(engine: Path, tmp_path: Path) -> Path:
    layout.write_repository(engine, tmp_path / "repo")
    return tmp_path / "repo"


def test_a_repository_has_every_model_with_a_config_and_a_version(repository: Path) -> None:
    for model in MODELS:
        assert (repository / model / "config.pbtxt").is_file()
        assert (repository / model / "1").is_dir()
    for model in ("preprocessing", "postprocessing"):
        assert "TritonPythonModel" in (repository / model / "1" / "model.py").read_text()


def test_engine_files_are_links_not_copies(engine: Path, repository: Path) -> None:
    for name in ("openvino_model.bin", "tokenizer.json", "config.json", "trtbuild.json"):
        assert os.path.samefile(engine / name, repository / "tensorrt_llm" / "1" / name)


def test_engine_files_are_copied_where_links_fail(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    layout.write_repository(engine, tmp_path / "repo")
    layout.check(tmp_path / "repo")
    assert not os.path.samefile(
        engine / "config.json", tmp_path / "repo" / "tensorrt_llm" / "1" / "config.json"
    )


def test_a_repository_knows_what_it_serves(repository: Path) -> None:
    served = layout.describe(repository)
    assert served.name == "tiny"
    assert served.target == "openvino"
    assert (served.tokenizer_dir / "tokenizer.json").is_file()
    assert (served.max_batch_size, served.max_seq_len, served.max_input_len) == (8, 256, 255)


def test_it_still_does_after_a_move(repository: Path, tmp_path: Path) -> None:
    moved = repository.rename(tmp_path / "elsewhere")
    layout.check(moved)
    assert (layout.describe(moved).tokenizer_dir / "tokenizer.json").is_file()


def test_the_name_can_be_chosen(engine: Path, tmp_path: Path) -> None:
    layout.write_repository(engine, tmp_path / "repo", name="my-model")
    assert layout.describe(tmp_path / "repo").name == "my-model"


def test_a_finished_repository_is_skipped_and_a_changed_wish_is_not(
    engine: Path, tmp_path: Path
) -> None:
    out = tmp_path / "repo"
    layout.write_repository(engine, out)
    before = (out / "trtbuild.json").stat().st_mtime_ns
    layout.write_repository(engine, out)
    assert (out / "trtbuild.json").stat().st_mtime_ns == before
    layout.write_repository(engine, out, options=RepositoryOptions(max_queue_size=7))
    assert (out / "trtbuild.json").stat().st_mtime_ns != before


def test_same_engine_same_bytes(engine: Path, tmp_path: Path) -> None:
    one = layout.write_repository(engine, tmp_path / "one")
    two = layout.write_repository(engine, tmp_path / "two")
    assert one.files == two.files


def test_progress_ends_at_its_total(engine: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    layout.write_repository(engine, tmp_path / "repo", progress=lambda *p: seen.append(p))
    assert seen[-1][0] == seen[-1][1] > 0


def test_digests_in_the_manifest_are_the_files_own(repository: Path) -> None:
    for name, entry in manifest.read(repository).files.items():
        assert digest.of(repository / name) == entry.digest, name


def _remove(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _replace(name: str, old: str, new: str) -> Any:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        # a new file: the old one may be a link into the engine
        (folder / name).unlink()
        (folder / name).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_remove("tokenizer.json"), "tokenizer.json"),
        (_remove("config.json"), "config.json"),
        (_remove("openvino_model.bin"), "openvino_model.bin"),
        (_replace("config.json", "build_config", "other"), "build_config"),
        (_replace("config.json", '"max_seq_len": 256', '"max_seq_len": 0'), "max_seq_len"),
        (_replace("config.json", "{", ""), "config.json"),
    ],
)
def test_a_folder_that_is_no_whole_engine_is_refused_by_name(
    engine: Path, tmp_path: Path, damage: Any, said: str
) -> None:
    damage(engine)
    with pytest.raises(ArtifactError, match=said):
        layout.write_repository(engine, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_a_checkpoint_is_not_an_engine(tmp_path: Path) -> None:
    checkpoint = make_engine(tmp_path / "checkpoint", kind="checkpoint")
    with pytest.raises(ArtifactError, match="is not an engine; found a checkpoint; build it"):
        layout.write_repository(checkpoint, tmp_path / "repo")


def test_settings_for_the_llm_api_are_refused_by_name(tmp_path: Path) -> None:
    manifest.Manifest(
        kind="engine", made_by={}, source={}, options={"target": "llmapi"}, about={}
    ).write(tmp_path)
    options = RepositoryOptions(max_queue_size=3)
    with pytest.raises(ArtifactError, match=r"are in its model\.yaml; found max_queue_size"):
        layout.write_repository(tmp_path, tmp_path / "repo", options=options)


def test_a_tensorrt_engine_needs_a_file_for_each_rank(tmp_path: Path) -> None:
    whole = make_engine(tmp_path / "gpu", files=("rank0.engine",))
    layout.write_repository(whole, tmp_path / "repo")
    assert layout.describe(tmp_path / "repo").target == "tensorrt-llm"
    with pytest.raises(ArtifactError, match=r"rank0\.engine"):
        layout.write_repository(make_engine(tmp_path / "none", files=()), tmp_path / "other")


def test_an_option_that_the_engine_cannot_honour_is_refused(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "engine", plugin_config={"use_paged_context_fmha": False})
    layout.write_repository(engine, tmp_path / "repo")
    with pytest.raises(LimitError, match="enable_kv_cache_reuse"):
        layout.write_repository(
            engine, tmp_path / "repo", options=RepositoryOptions(enable_kv_cache_reuse=True)
        )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_remove("tensorrt_llm/config.pbtxt"), r"tensorrt_llm/config\.pbtxt"),
        (_replace("ensemble/config.pbtxt", "TYPE_STRING", "TYPE_BYTES"), "ensemble"),
        (_remove("tensorrt_llm/1/tokenizer.json"), "tokenizer.json"),
        (_replace("postprocessing/1/model.py", "OUTPUT", "OUTPUTS"), "model.py"),
    ],
)
def test_check_names_the_file_that_changed(repository: Path, damage: Any, said: str) -> None:
    layout.check(repository)
    damage(repository)
    with pytest.raises(ArtifactError, match=said):
        layout.check(repository)


def test_a_killed_write_leaves_nothing(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", die)
    with pytest.raises(KeyboardInterrupt):
        layout.write_repository(engine, tmp_path / "repo")
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]
