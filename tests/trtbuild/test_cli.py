"""Promise: each command does what it says, or says in one line why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trtbuild.cli import COMMANDS

SMALL = ("--max-batch-size", "4", "--kv-cache-gib", "0.02", "--max-num-tokens", "64")


def trtbuild(
    *arguments: object, code: int = 0, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; it must exit with `code`."""
    result = subprocess.run(
        [sys.executable, "-m", "trtbuild", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert result.returncode == code, result.stderr
    return result


def refused(*arguments: object, cwd: Path | None = None) -> str:
    """What a command says that fails: one line."""
    result = trtbuild(*arguments, code=1, cwd=cwd)
    [line] = result.stderr.splitlines()
    assert line.startswith("trtbuild: ")
    assert not result.stdout
    return line


@pytest.fixture
def model(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A Hugging Face folder of one's own, to be broken."""
    folder = tmp_path / "my model"
    folder.mkdir()
    for file in tiny_models["llama"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def stages(model: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A checkpoint, an engine and a repository, made by the commands."""
    checkpoint, engine, repository = (tmp_path / name for name in ("ckpt", "engine", "repo"))
    trtbuild("convert", model, "-o", checkpoint, "--dtype", "float32")
    trtbuild("build", checkpoint, "-o", engine, *SMALL)
    trtbuild("repo", engine, "-o", repository)
    return checkpoint, engine, repository


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert "Usage: trtbuild" in trtbuild(command, "--help").stdout


def test_the_version_is_the_packages() -> None:
    assert trtbuild("--version").stdout.startswith("trtbuild, version ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert",),
        ("convert", "model"),
        ("no-such-command",),
        ("build", "x", "-o", "y", "--max-batch-size", "many"),
        ("convert", "x", "-o", "y", "--dtype", "int3"),
        ("serve", "x", "--port", "70000"),
        ("--config", "no-such-file.toml", "inspect", "x"),
    ],
)
def test_misuse_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert "Usage:" in trtbuild(*arguments, code=2).stderr


def test_the_stages_follow_from_one_another(stages: tuple[Path, Path, Path]) -> None:
    for folder, kind in zip(stages, ("checkpoint", "engine", "repository"), strict=True):
        assert trtbuild("check", folder).stdout == f"{kind}: {folder} is whole\n"
        assert json.loads(trtbuild("check", folder, "--json").stdout)["whole"] is True
        told = json.loads(trtbuild("inspect", folder, "--json").stdout)
        assert told["kind"] == kind
        assert told["files"].keys() == {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path != folder / "trtbuild.json"
        }
        assert f"{kind}: {folder}" in trtbuild("inspect", folder).stdout
    assert told["about"]["name"] == "my model"


def test_a_finished_stage_is_kept_as_it_is(stages: tuple[Path, Path, Path], model: Path) -> None:
    checkpoint, engine, repository = stages
    before = {path: path.stat().st_mtime_ns for stage in stages for path in stage.rglob("*")}
    again = trtbuild("convert", model, "-o", checkpoint, "--dtype", "float32")
    assert "already there" in again.stdout
    assert "already there" in trtbuild("build", checkpoint, "-o", engine, *SMALL).stdout
    assert "already there" in trtbuild("repo", engine, "-o", repository).stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_option_or_another_model_makes_it_anew(
    stages: tuple[Path, Path, Path], model: Path
) -> None:
    checkpoint, *_ = stages
    result = trtbuild("convert", model, "-o", checkpoint, "--dtype", "bfloat16")
    assert "already there" not in result.stdout
    weights = model / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    result = trtbuild("convert", model, "-o", checkpoint, "--dtype", "bfloat16")
    assert "already there" not in result.stdout


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[convert]\ndtype = "float32"\n')
    variable = {"TRTBUILD_CONVERT_DTYPE": "bfloat16"}

    def dtype(*arguments: str, env: dict[str, str] | None = None, before: Any = ()) -> str:
        result = trtbuild(
            *before, "convert", model, "-o", tmp_path / "out", "--json", *arguments, env=env
        )
        found: str = json.loads(result.stdout)["about"]["dtype"]
        return found

    config = ("--config", file)
    assert dtype("--dtype", "float16", env=variable, before=config) == "float16"
    assert dtype(env=variable, before=config) == "bfloat16"
    assert dtype(before=config) == "float32"
    assert dtype() == "float16"


def test_a_variable_is_called_as_its_flag_is() -> None:
    rows = json.loads(trtbuild("recipes", env={"TRTBUILD_RECIPES_JSON": "1"}).stdout)
    assert "fp8" in {row["recipe"] for row in rows}


def test_a_setting_that_no_command_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[convert]\ndtipe = 1\n")
    assert "dtipe" in trtbuild("--config", file, "inspect", tmp_path, code=2).stderr


def truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def drop_field(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["num_attention_heads"]
    (model / "config.json").write_text(json.dumps(config))


def rename_family(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["architectures"] = ["MysteryForCausalLM"]
    (model / "config.json").write_text(json.dumps(config))


def only_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def break_json(model: Path) -> None:
    (model / "config.json").write_text("{")


def no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (truncate, "model.safetensors"),
        (drop_field, "num_attention_heads"),
        (rename_family, "MysteryForCausalLM"),
        (only_pickle, "pickle"),
        (break_json, "config.json"),
        (no_tokenizer, "tokenizer.json"),
    ],
)
def test_a_damaged_model_is_one_clear_line(
    model: Path, tmp_path: Path, harm: Any, says: str
) -> None:
    harm(model)
    assert says in refused("convert", model, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_or_wrong_folder_is_one_clear_line(
    stages: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    checkpoint, engine, _ = stages
    out = tmp_path / "out"
    assert "doesn't exist" in refused("convert", tmp_path / "nowhere", "-o", out)
    assert "no such folder" in refused("build", tmp_path / "nowhere", "-o", out)
    assert "not an engine" in refused("repo", checkpoint, "-o", out)
    assert "not a repository" in refused("serve", engine)
    assert "not a trtbuild artifact" in refused("inspect", tmp_path)


def test_a_folder_that_is_not_ours_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    assert "didn't make it" in refused("convert", model, "-o", tmp_path / "theirs")
    assert (tmp_path / "theirs" / "thesis.txt").read_text() == "years of work"


def test_a_changed_file_is_found_by_check(stages: tuple[Path, Path, Path]) -> None:
    engine = stages[1]
    weights = engine / "openvino_model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    assert "openvino_model.bin has changed" in refused("check", engine)


@pytest.fixture
def heavy_model(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A model of many layers, so that it takes a while."""
    from builder.safetensors_file import read
    from builder.safetensors_writer import PendingTensor, Span, write

    source, folder = tiny_models["llama"], tmp_path / "heavy"
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 600}))
    pending = []
    for name, tensor in read(source / "model.safetensors").items():
        names = [name]
        span = Span(tensor=tensor, begin=tensor.begin, size_bytes=tensor.nbytes)
        if ".layers.0." in name:
            names = [name.replace(".0.", f".{i}.") for i in range(600)]
        elif ".layers." in name:
            continue
        pending += [
            PendingTensor(
                name=n, dtype=tensor.dtype, shape=tensor.shape, segments=lambda s=span: [s]
            )
            for n in names
        ]
    write(folder / "model.safetensors", pending, lambda done, total: None)
    return folder


SLOWLY = """
import time
from trtbuild import cli, console
console.silent = lambda done, total: time.sleep(0.02)
cli.main()
"""
"""The command, with some time between tensors where it tells of them: convert does."""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("command", ["convert", "build"])
def test_a_stopped_run_leaves_nothing_finished_and_the_next_succeeds(
    heavy_model: Path, tmp_path: Path, command: str, stop: signal.Signals
) -> None:
    arguments = ["convert", heavy_model, "-o", tmp_path / "out", "--dtype", "float32"]
    if command == "build":
        trtbuild("convert", heavy_model, "-o", tmp_path / "ckpt", "--dtype", "float32")
        arguments = ["build", tmp_path / "ckpt", "-o", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background has them ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.partial")):
        assert process.poll() is None, "it was over before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert "no such folder" in refused("inspect", tmp_path / "out")
    trtbuild(*arguments)
    trtbuild("check", tmp_path / "out")
    assert not list(tmp_path.glob(".out.*"))


def test_a_plan_is_what_convert_writes_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    layout = ("--tp", "2", "--pp", "2", "--dtype", "bfloat16")
    before = sorted(tmp_path.rglob("*"))
    planned = json.loads(trtbuild("convert", model, "--plan", "--json", *layout).stdout)
    assert sorted(tmp_path.rglob("*")) == before
    trtbuild("convert", model, "-o", tmp_path / "out", *layout)
    files = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("rank*")}
    assert {file["file"]: file["size_bytes"] for file in planned} == files
    assert len(files) == 4
    assert "rank3.safetensors: " in trtbuild("convert", model, "--plan", *layout).stdout
