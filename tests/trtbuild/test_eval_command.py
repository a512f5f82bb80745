"""Promise: `trtbuild eval` compares any two models, and fails when a limit isn't kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.convert import ConvertOptions, convert
from triton_repo.launch.ports import free_ports

SOURCE = Path(__file__).read_text()
READY_S = 240


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; it must exit with `code`."""
    result = subprocess.run(
        [sys.executable, "-m", "trtbuild", "eval", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == code, result.stderr
    return result


@pytest.fixture(scope="module")
def folders(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A model, its checkpoints, and a text to compare them on."""
    root = tmp_path_factory.mktemp("eval")
    for name, options in (
        ("plain", ConvertOptions(dtype="float32")),
        ("int4", ConvertOptions(dtype="bfloat16", recipe="int4_wo")),
    ):
        convert(tiny_models["llama"], root / name, options=options)
    (root / "text.txt").write_text(SOURCE)
    return {"model": tiny_models["llama"], **{path.stem: path for path in root.iterdir()}}


@pytest.fixture
def short(folders: dict[str, Path]) -> tuple[object, ...]:
    """Options for a quick comparison."""
    return ("--text", folders["text"], "--tokens", 256, "--max-length", 64)


@pytest.mark.reference
def test_a_model_and_its_checkpoint_are_the_same(
    folders: dict[str, Path], short: tuple[object, ...]
) -> None:
    limits = ("--max-ppl-increase", "0.1%", "--min-agreement", "99%")
    told = json.loads(run(folders["model"], folders["plain"], *short, *limits, "--json").stdout)
    assert (told["source"]["kind"], told["quantized"]["kind"]) == ("torch", "checkpoint")
    assert told["passed"]
    assert told["agreement"] == 1
    assert told["kl"]["mean"] < 1e-5
    assert (told["sequences"], told["tokens"], told["positions"]) == (4, 256, 252)


def test_the_report_is_written_before_a_limit_makes_it_fail(
    folders: dict[str, Path], short: tuple[object, ...], tmp_path: Path
) -> None:
    limits = ("--min-agreement", "0.99", "--max-ppl-increase", "50%")
    out = tmp_path / "report"
    result = run(folders["plain"], folders["int4"], *short, *limits, "--report", out, code=1)
    told = json.loads((out / "report.json").read_text())
    assert not told["passed"]
    assert told["agreement"] < 0.99
    assert (out / "report.html").is_file()
    [line] = result.stderr.splitlines()
    assert line.startswith("trtbuild: the quantization costs too much: the models agree on")
    assert "top-1 agreement" in result.stdout
    assert str(out / "report.html") in result.stdout


@pytest.mark.reference
def test_layers_that_hurt_are_named(folders: dict[str, Path], short: tuple[object, ...]) -> None:
    told = json.loads(run(folders["model"], folders["int4"], *short, "--json").stdout)
    errors = told["weight_errors"]
    assert len(errors) == 2 * 5
    assert 0.01 < errors[-1]["relative"] <= errors[0]["relative"] < 0.5
    assert told["versions"]["trtbuild"]


def test_the_built_in_text_needs_no_file(folders: dict[str, Path]) -> None:
    told = json.loads(
        run(
            folders["plain"], folders["plain"], "--tokens", 100, "--max-length", 50, "--json"
        ).stdout
    )
    assert told["tokens"] == 100
    assert told["perplexity"]["increase"] == 0
    assert told["settings"]["text"] == "built-in"


def test_models_with_other_tokenizers_are_refused(
    folders: dict[str, Path], short: tuple[object, ...], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folders["plain"], other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    (one, first), (two, second) = list(vocabulary.items())[10:12]
    vocabulary[one], vocabulary[two] = second, first
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = run(folders["plain"], other, *short, code=1).stderr
    assert "different tokenizers" in said


@pytest.mark.parametrize(
    ("options", "says", "code"),
    [
        (("--max-ppl-increase", "much"), "as 2% or 0.02", 2),
        (("--text", "/nowhere/text.txt"), "can't use /nowhere/text.txt", 1),
        (("--max-length", "1"), "--max-length", 2),
    ],
)
def test_options_that_make_no_sense_are_refused(
    folders: dict[str, Path], options: tuple[str, ...], says: str, code: int
) -> None:
    assert says in run(folders["plain"], folders["plain"], *options, code=code).stderr


def test_an_empty_text_and_a_missing_model_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    said = run(folders["plain"], folders["plain"], "--text", empty, code=1).stderr
    assert "has no text" in said
    said = run(folders["plain"], tmp_path / "absent", "--text", empty, code=1).stderr
    assert "doesn't exist" in said
    said = run("http://127.0.0.1:9", "http://127.0.0.1:9", code=1).stderr
    assert "name its folder with --tokenizer" in said
    said = run(folders["plain"], "http://127.0.0.1:9/v1", code=1).stderr
    assert "doesn't answer" in said


@pytest.fixture(scope="module")
def endpoint(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`trtbuild up` of the tiny model: a real Triton and the proxy."""
    [port] = free_ports("127.0.0.1", 1)
    work, url = tmp_path_factory.mktemp("work"), f"http://127.0.0.1:{port}"
    small = ("--max-batch-size", "4", "--kv-cache-gib", "0.02", "--max-num-tokens", "64")
    chosen = ("--dtype", "float32", "--name", "tiny", "--port", str(port), *small)
    command = [sys.executable, "-m", "trtbuild", "up", str(folders["model"])]
    process = subprocess.Popen([*command, "--work", str(work), *chosen])
    try:
        deadline = time.monotonic() + READY_S
        while not _healthy(url):
            assert process.poll() is None, "trtbuild up has ended"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.triton
def test_our_own_endpoint_agrees_with_the_checkpoint_that_it_serves(
    folders: dict[str, Path], short: tuple[object, ...], endpoint: str
) -> None:
    told: dict[str, Any] = json.loads(
        run(folders["plain"], f"{endpoint}/v1#tiny", *short, "--json").stdout
    )
    assert told["quantized"]["kind"] == "endpoint"
    assert told["agreement"] == 1
    assert told["agreement_positions"] > 16
    assert told["perplexity"]["source"] > 1
    found = told["perplexity"]
    assert found["quantized"] == pytest.approx(found["source"], rel=1e-3), "from echoed log probs"
    assert told["kl"] is None
    assert told["quantized"]["size_bytes"] is None
