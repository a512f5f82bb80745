"""Promise: up takes a model through every stage of its target, and refuses early what would fail.

The endpoint is left out: serving is shown elsewhere. The engine compiler is a stand-in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from stand_in_machine import SMALL, StandInMachine, gpus

from builder import manifest
from builder.errors import TrtbuildError
from triton_repo.served import describe
from trtbuild.cli import trtbuild


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The repositories that would have been served."""
    found: list[Path] = []

    def run(repository: Path, **_: Any) -> None:
        found.append(repository)

    monkeypatch.setattr("trtbuild.endpoint.run", run)
    return found


def up(model: Path, work: Path, *arguments: str, code: int = 0) -> Result:
    words = ["up", str(model), "--work", str(work), "--name", "served", *arguments]
    result = CliRunner().invoke(trtbuild, words, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_to_tensorrt_llm_the_model_is_divided_as_asked(
    tiny_models: dict[str, Path], machine: StandInMachine, tmp_path: Path, served: list[Path]
) -> None:
    machine.add_gpus(*gpus(2))
    machine.add_tensorrt_llm()
    target = ("--target", "tensorrt-llm", "--tp", "2", *SMALL)
    up(tiny_models["llama"], tmp_path, *target)
    assert served == [tmp_path / "served" / "repository"]
    made = manifest.read(tmp_path / "served" / "engine")
    assert (made.about["name"], made.about["tp"], made.about["world_size"]) == ("served", 2, 2)
    assert "already there" in up(tiny_models["llama"], tmp_path, *target).stdout
    assert len(machine.calls) == 1


def test_to_openvino_where_there_is_no_gpu(
    tiny_models: dict[str, Path], machine: StandInMachine, tmp_path: Path, served: list[Path]
) -> None:
    limits = ("--max-batch-size", "4", "--max-num-tokens", "64", "--kv-cache-gib", "0.02")
    up(tiny_models["llama"], tmp_path, *limits)
    engine = tmp_path / "served" / "engine"
    assert json.loads((engine / "trtbuild.json").read_text())["options"]["target"] == "openvino"


def test_to_the_llm_api_the_models_own_folder_is_served(
    tiny_models: dict[str, Path], machine: StandInMachine, tmp_path: Path, served: list[Path]
) -> None:
    machine.add_gpus(*gpus(2))
    machine.add_tensorrt_llm()
    target = ("--target", "llmapi", "--tp", "2", "--dtype", "bfloat16", *SMALL)
    up(tiny_models["llama"], tmp_path, *target)
    assert served == [tmp_path / "served" / "repository"]
    about = describe(served[0])
    assert (about.name, about.target, about.engines[0].world_size) == ("served", "llmapi", 2)
    settings = yaml.safe_load((about.engine_dir / "model.yaml").read_text())
    assert settings["model"] == str(tiny_models["llama"].resolve())
    assert (settings["tensor_parallel_size"], settings["dtype"]) == (2, "bfloat16")
    assert sorted(path.name for path in (tmp_path / "served").iterdir()) == ["engine", "repository"]
    assert up(tiny_models["llama"], tmp_path, *target).stdout.count("already there") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--target", "openvino", "--tp", "2"), "--tp is an option of the target tensorrt-llm and"),
        (("--target", "tensorrt-llm", "--kv-cache-gib", "2"), "--kv-cache-gib is an option of"),
        (("--target", "llmapi", "--gpu", "H100"), "--gpu is an option of the target tensorrt-llm"),
        (("--target", "openvino", "--copy"), "--copy is an option of the target llmapi"),
        (("--target", "openvino", "--kv-cache", "fp8"), "--kv-cache needs a --recipe"),
    ],
)
def test_options_that_have_no_meaning_are_misuse(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    assert says in up(tmp_path / "model", tmp_path, *arguments, code=2).output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--target", "tensorrt-llm", "--set", "foo=b"), "no such flag"),
        (("--target", "tensorrt-llm", "--max-seq-len", "99999"), "made for"),
        (("--target", "tensorrt-llm", "--recipe", "fp8", "--set", "foo=b"), "no such flag"),
        (("--target", "openvino", "--max-seq-len", "99999"), "made for"),
        (("--target", "llmapi", "--max-seq-len", "99999"), "made for"),
        (("--target", "llmapi", "--set", "max_sequence=3"), "has no setting max_sequence"),
        (("--target", "llmapi", "--recipe", "fp8", "--set", "foo=b"), "has no setting foo"),
    ],
)
def test_what_the_build_would_refuse_is_refused_before_the_conversion(
    tiny_models: dict[str, Path],
    machine: StandInMachine,
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    machine.add_gpus(*gpus())
    machine.add_tensorrt_llm()
    with pytest.raises(TrtbuildError, match=says):
        up(tiny_models["llama"], tmp_path / "work", *arguments)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("with_compiler", [False, True])
def test_what_cannot_be_built_here_is_not_converted_first(
    tiny_models: dict[str, Path], machine: StandInMachine, tmp_path: Path, with_compiler: bool
) -> None:
    if with_compiler:
        machine.add_tensorrt_llm()
    with pytest.raises(TrtbuildError, match="GPU" if with_compiler else "no engine compiler"):
        up(tiny_models["llama"], tmp_path / "work", "--target", "tensorrt-llm")
    assert not (tmp_path / "work").exists()
