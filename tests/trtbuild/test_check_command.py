"""Promise: check tells all that keeps a TensorRT-LLM engine from running, and never more than it
knows. The engine and the GPUs are stand-ins (built_engine.py, nvidia_smi.py).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from built_engine import write
from click.testing import CliRunner, Result
from nvidia_smi import A100, H100, NvidiaSmi

from builder.errors import ArtifactError, LimitError
from builder.machine import smi
from triton_repo.layout import Part, write_parts, write_repository
from trtbuild.commands.check import check


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(smi, "_DRIVER_FILE", tmp_path / "version")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write(tmp_path / "engine", tp=2)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(check, [str(each) for each in arguments])


def test_without_a_gpu_it_is_whole_and_doesnt_fit(engine: Path) -> None:
    result = run(engine)
    assert isinstance(result.exception, ArtifactError)
    first, second, *rows = result.stdout.splitlines()
    assert first == f"engine: {engine} is whole"
    assert second == "it doesn't fit this machine"
    problem, mended, versions, gpus = (" ".join(row.split()) for row in rows)
    assert problem.startswith("problem GPUs 2 ranks, one GPU each; found no NVIDIA GPU")
    assert mended.startswith("→ run it where there is one")
    assert versions.startswith("unknown TensorRT-LLM, TensorRT, CUDA no TensorRT-LLM here")
    assert "--container TAG" in versions
    assert gpus.startswith("unknown driver, compute capability, GPU memory no GPU here")
    assert "--gpu NAME" in gpus


def test_in_a_container_elsewhere_what_isnt_known_is_called_no_fit(engine: Path) -> None:
    result = run(engine, "--container", "26.07")
    assert result.exit_code == 0
    assert "not everything could be compared; nothing found against nvcr.io/" in result.stdout
    assert "it fits" not in result.stdout


def test_a_container_and_a_gpu_of_choice_are_compared_without_either(engine: Path) -> None:
    result = run(engine, "--container", "26.07", "--gpu", "H100", "--json")
    report = json.loads(result.stdout)
    assert report["place"].startswith(
        "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3 with H100"
    )
    assert report["mismatches"] == []
    assert report["fits"] is None
    assert [each["what"] for each in report["unknown"]] == ["driver", "GPUs"]
    assert result.exit_code == 0


def test_with_the_right_gpus_and_container_it_fits(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    NvidiaSmi(gpus=(H100, H100)).install(tmp_path / "bin", monkeypatch)
    result = run(engine, "--container", "26.07")
    assert result.exit_code == 0
    assert "it fits nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3" in result.stdout
    assert json.loads(run(engine, "--container", "26.07", "--json").stdout)["fits"] is True


def test_everything_that_is_wrong_is_listed_with_what_mends_it(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (engine / "rank1.engine").write_bytes(b"short")
    NvidiaSmi(gpus=(A100,), driver="570.211.01").install(tmp_path / "bin", monkeypatch)
    result = run(engine, "--container", "26.02")
    assert isinstance(result.exception, ArtifactError)
    assert "found rank1.engine, TensorRT-LLM, TensorRT, compute" in str(result.exception)
    assert result.stdout.startswith(f"engine: {engine} is damaged\nit doesn't fit nvcr.io/")
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem")]
    assert [line.split()[1] for line in problems] == [
        *("rank1.engine", "TensorRT-LLM", "TensorRT", "compute", "GPUs"),
    ]
    assert result.stdout.count("→") == 6
    assert result.stdout.count("trtbuild build CHECKPOINT") == 1  # one mends them all
    command = result.stdout.splitlines()[-1]
    assert "--gpu 'NVIDIA A100-SXM4-40GB' --container nvcr.io" in command
    report = json.loads(run(engine, "--container", "26.02", "--json").stdout)
    assert (report["whole"], report["fits"]) == (False, False)
    assert len(report["mismatches"]) == 6  # the driver is a warning: data-centre GPUs may manage


def test_an_engine_of_trtllm_build_alone_is_checked_too(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine", ours=False)
    result = run(engine, "--container", "25.08")
    assert result.stdout.startswith(f"engine: {engine} has all its ranks\n")
    assert "built with 1.2.1; found 0.21.0" in result.stdout
    assert isinstance(result.exception, ArtifactError)


def test_the_engine_in_a_repository_is_compared_too(tmp_path: Path, tiny_tokenizer: Path) -> None:
    engine = write(tmp_path / "engine", tokenizer=tiny_tokenizer)
    repository = tmp_path / "repository"
    write_repository(engine, repository, name="chat")
    result = run(repository, "--container", "26.07")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"repository: {repository} is whole\nnot everything")
    report = json.loads(run(repository, "--container", "25.08", "--json").stdout)
    assert (report["kind"], report["whole"], report["fits"]) == ("repository", True, False)
    assert report["engine"] == str(repository / "tensorrt_llm" / "1")
    again = f" && trtbuild repo ENGINE -o {repository} --name chat"
    assert all(each["command"].endswith(again) for each in report["mismatches"])
    (repository / "tensorrt_llm" / "1" / "rank0.engine").write_bytes(b"short")
    assert "has changed" in str(run(repository, "--container", "26.07").exception)


def test_each_engine_of_a_repository_is_compared(tmp_path: Path, tiny_tokenizer: Path) -> None:
    old = {"tensorrt_llm": "1.1.0", "tensorrt": "10.13.0.35", "cuda": "13.0.0"}
    parts = [
        Part(engine=write(tmp_path / name, tokenizer=tiny_tokenizer, **more), name=name)
        for name, more in (("new", {}), ("old", {"versions": old}))
    ]
    repository = tmp_path / "repository"
    write_parts(parts, repository)
    result = run(repository, "--container", "26.07")
    assert f"{repository}/old_tensorrt_llm/1 doesn't fit" in str(result.exception)
    assert result.stdout.index("\nnew_tensorrt_llm/1:\nnot everything") < result.stdout.index(
        "\nold_tensorrt_llm/1:\nit doesn't fit"
    )
    report = json.loads(run(repository, "--container", "26.07", "--json").stdout)
    assert [(Path(each["engine"]).parent.name, each["fits"]) for each in report["engines"]] == [
        ("new_tensorrt_llm", None),
        ("old_tensorrt_llm", False),
    ]


def test_an_unknown_container_or_gpu_is_refused(engine: Path) -> None:
    assert isinstance(run(engine, "--container", "31.12").exception, LimitError)
    assert isinstance(run(engine, "--gpu", "Voodoo 2").exception, LimitError)


def test_a_container_makes_no_sense_for_another_artifact(tmp_path: Path) -> None:
    result = run(tmp_path, "--container", "26.07")
    assert result.exit_code == 2
    assert "TensorRT-LLM engines" in result.stderr


def test_on_a_terminal_it_is_a_table(engine: Path) -> None:
    import pty
    import subprocess

    controller, terminal = pty.openpty()
    code = "from trtbuild.commands.check import check; check()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(engine), "--container", "26.07"],
        stdout=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                if not (part := os.read(controller, 4096)):
                    break
            except OSError:
                break
            shown += part
    os.close(controller)
    text = shown.decode()
    assert "┃" in text
    assert "\x1b[32mok" in text
    assert "TensorRT-LLM" in text
