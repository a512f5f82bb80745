from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers
from built_engine import write as write_engine
from click.testing import CliRunner, Result

from triton_repo.layout import describe
from triton_repo.models.pbtxt import from_text
from triton_repo.settings.options import GROUPS, SETTINGS
from trtbuild.cli import trtbuild


def write(folder: Path) -> Path:
    """An engine with a tokenizer."""
    files = folder.parent / f"{folder.name}_tokenizer"
    small_tokenizers.write_folder(files, small_tokenizers.byte_level())
    return write_engine(folder, tokenizer=files)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write(tmp_path / "engine")


def run(*arguments: object, **settings: Any) -> Result:
    return CliRunner().invoke(trtbuild, ["repo", *map(str, arguments)], **settings)


def config(repository: Path, model: str = "tensorrt_llm") -> Any:
    return from_text((repository / model / "config.pbtxt").read_text())


def parameters(repository: Path, model: str = "tensorrt_llm") -> dict[str, str]:
    found = config(repository, model).parameters
    return {name: each.string_value for name, each in found.items()}


def test_help_has_every_setting_in_its_group() -> None:
    text = run("--help").stdout
    assert [line[:-1] for line in text.splitlines() if line[:-1] in GROUPS] == list(GROUPS)
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')}" in text


def test_options_reach_the_repository(engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "repo"
    result = run(
        *(
            engine,
            "-o",
            out,
            "--name",
            "chat",
            "--max-queue-size",
            9,
            "--no-enable-chunked-context",
        ),
        *(
            "--kv-cache-free-gpu-mem-fraction",
            "0.5",
            "--set",
            "batch_scheduler_policy=guaranteed_no_evict",
        ),
    )
    assert result.exit_code == 0, result.output
    assert describe(out).name == "chat"
    found = parameters(out)
    assert found["enable_chunked_context"] == "false"
    assert found["kv_cache_free_gpu_mem_fraction"] == "0.5"
    assert found["batch_scheduler_policy"] == "guaranteed_no_evict"
    assert config(out).dynamic_batching.default_queue_policy.max_queue_size == 9


def test_the_environment_and_the_settings_file_reach_it_too(engine: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        "[repo]\nmax_queue_size = 7\ngpu_device_ids = [[3]]\nmulti_block_mode = false\n"
    )
    result = CliRunner().invoke(
        trtbuild,
        ["--config", str(file), "repo", str(engine), "-o", str(tmp_path / "repo")],
        env={"TRTBUILD_REPO_STATS_CHECK_PERIOD_MS": "50"},
    )
    assert result.exit_code == 0, result.output
    found = parameters(tmp_path / "repo")
    assert found["gpu_device_ids"] == "3"
    assert found["multi_block_mode"] == "false"
    assert found["stats_check_period_ms"] == "50"


def test_set_beats_the_option_and_one_engines_beats_all(tmp_path: Path) -> None:
    engines = [write(tmp_path / name) for name in "ab"]
    result = run(
        *engines,
        *(
            "-o",
            tmp_path / "repo",
            "--name",
            "a",
            "--name",
            "b",
            "--cancellation-check-period-ms",
            5,
        ),
        *("--set", "cancellation_check_period_ms=20", "--set", "b:cancellation_check_period_ms=30"),
    )
    assert result.exit_code == 0, result.output
    name = "cancellation_check_period_ms"
    assert parameters(tmp_path / "repo", "a_tensorrt_llm")[name] == "20"
    assert parameters(tmp_path / "repo", "b_tensorrt_llm")[name] == "30"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "speed=1"), "no setting is called speed"),
        (("--set", "speed"), "it is NAME=VALUE"),
        (("--set", "max_queue_size=1", "--set", "max_queue_size=2"), "set twice"),
        (("--max-queue-size", "many"), "must be a whole number"),
        (("--kv-cache-free-gpu-mem-fraction", "2"), "0.001 to 1"),
        (("--name", "a", "--name", "b"), "1 engines need as many --name"),
        (("--lora", "one", "--lora", "other/one"), "a name of its own"),
        (("--draft", "one", "--draft", "two"), "an engine has one draft"),
        (("--name", "a", "--set", "a_draft:max_beam_width=1"), "a has no --draft"),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    result = run(engine, "-o", tmp_path / "repo", *words)
    assert said in (result.output + str(result.exception))
    assert result.exit_code != 0
    assert not (tmp_path / "repo").exists()


def test_of_several_engines_a_draft_says_for_which(tmp_path: Path) -> None:
    engines = [write(tmp_path / name) for name in "ab"]
    names = ("--name", "a", "--name", "b")
    result = run(*engines, "-o", tmp_path / "repo", *names, "--draft", "small")
    assert "say for which engine: a:small" in result.output


def test_check_of_a_good_repository_says_so(engine: Path, tmp_path: Path) -> None:
    run(engine, "-o", tmp_path / "repo")
    result = run("check", tmp_path / "repo")
    assert result.exit_code == 0
    assert result.stdout == f"repository: {tmp_path / 'repo'}: nothing wrong\n"


def test_check_lists_all_that_is_wrong_and_exits_with_1(engine: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    run(engine, "-o", repository)
    (repository / "preprocessing" / "1" / "model.py").unlink()
    (repository / "ensemble" / "config.pbtxt").write_text("nonsense: 1")
    result = run("check", repository)
    assert result.exit_code == 1
    assert "nonsense" in result.stdout
    assert "preprocessing/1 model.py" in result.stdout
    told = json.loads(run("check", repository, "--json").stdout)
    assert told["errors"] == len(told["findings"]) >= 3
    assert {"severity", "file", "field", "found", "do"} == told["findings"][0].keys()


def test_a_folder_called_check_is_reached_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "check")
    monkeypatch.chdir(tmp_path)
    result = run("./check", "-o", "repo")
    assert result.exit_code == 0, result.output
