"""Promise: the images' instructions are sound, and hold all that the commands need."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import DOCKER, ROOT, parsed, run, tool

DOCKERFILE = DOCKER / "Dockerfile"
stages = pytest.mark.parametrize("stage", ["cpu", "gpu"])
QUANTIZE = "quantize"


def instructions(stage: str) -> list[tuple[str, str]]:
    """The stage's instructions: name and arguments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found: dict[str, list[tuple[str, str]]] = {"": []}
    current = ""
    for line in filter(str.strip, lines):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            current = rest.split()[-1]
            found[current] = []
        found[current].append((name, rest.strip()))
    return found[stage]


def last(stage: str, name: str) -> str:
    return [rest for found, rest in instructions(stage) if found == name][-1]


def test_hadolint_has_nothing_to_say() -> None:
    result = run(tool("hadolint"), "--no-color", DOCKERFILE)
    assert result.stdout == ""
    assert result.returncode == 0


def test_hadolint_would_object(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install curl\n")
    assert run(tool("hadolint"), wrong).returncode != 0


@stages
def test_what_the_image_runs_is_a_command_of_ours(stage: str) -> None:
    entry, command = json.loads(last(stage, "ENTRYPOINT")), json.loads(last(stage, "CMD"))
    assert entry[-1] == "trtbuild"
    options = parsed(command)
    assert options["host"] == "0.0.0.0"
    assert options["only"] is None
    assert last(stage, "EXPOSE") == str(options["port"])
    # beside the repository, which is read-only there
    assert str(options["log"].parent) in last(stage, "RUN")


@stages
def test_its_health_is_the_endpoints(stage: str) -> None:
    health = last(stage, "HEALTHCHECK")
    check = json.loads(health.partition("CMD ")[2])
    assert check[:2] == ["python3", "/opt/trtbuild/ready.py"]
    assert "docker/ready.py /opt/trtbuild/ready.py" in last(stage, "RUN")
    [port] = [rest for name, rest in instructions(stage) if name == "EXPOSE"]
    assert check[2:] == [f"http://127.0.0.1:{port}/health"]
    assert re.search(r"--start-period=\d+m", health)


@pytest.mark.parametrize("stage", ["cpu", "gpu", QUANTIZE])
def test_it_does_not_run_as_root(stage: str) -> None:
    assert last(stage, "USER") == "1000:1000"
    after = instructions(stage)[instructions(stage).index(("USER", "1000:1000")) :]
    assert not {"RUN", "COPY", "ADD"} & {name for name, _ in after}


def test_what_nvidia_installed_is_not_changed() -> None:
    install = last("gpu", "RUN")
    assert (
        re.search(r"pip list --format=freeze > (\S+)", install)[1]
        in re.search(  # type: ignore[index]
            r"--constraint (\S+)", install
        )[1]
    )  # type: ignore[index]


def test_modelopt_has_a_python_of_its_own_beside_nvidias() -> None:
    """TensorRT-LLM's versions of torch and transformers aren't those that ModelOpt is read with."""
    assert instructions(QUANTIZE)[0] == ("FROM", "gpu AS quantize")
    install = last(QUANTIZE, "RUN")
    [venv] = re.findall(r"-m venv --without-pip (\S+)", install)
    assert f"pip --python {venv}/bin/python" in install
    assert "/src[quantize]" in install
    assert "--constraint" not in install
    script = (ROOT / "examples" / "gpu_acceptance.py").read_text()
    assert f'QUANTIZE = Path("{venv}/bin/python")' in script


def context(folder: Path) -> None:
    """Copy what a build sends to the engine: nothing but what the ignore file excepts."""
    rules = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in rules
    allowed = {Path(rule[1:]) for rule in rules if rule.startswith("!")}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in map(Path, listed.stdout.splitlines()):
        if {name, *name.parents} & allowed and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def rooms() -> set[str]:
    """The packages that pyproject.toml names."""
    text = (ROOT / "pyproject.toml").read_text()
    [listed] = re.findall(r"packages\.find\]\ninclude = (\[.*\])", text)
    return {name.removesuffix("*") for name in json.loads(listed)}


def package_files() -> Iterator[str]:
    for room in rooms():
        for path in (ROOT / room).rglob("*"):
            if path.suffix in (".py", ".json", ".j2", ".jsonl") and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def test_the_build_context_makes_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    context(tmp_path / "src")
    top = {path.name for path in (tmp_path / "src").iterdir()}
    assert top == {"pyproject.toml", "README.md", "docker", *rooms()}
    assert [p.name for p in (tmp_path / "src" / "docker").iterdir()] == ["ready.py"]
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    result = run(*wheel, "--wheel-dir", tmp_path, tmp_path / "src")
    assert result.returncode == 0, result.stderr
    [made] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        held = set(archive.namelist())
    assert set(package_files()) <= held
    assert not any(name.startswith(("tests/", "docker/")) for name in held)


def test_the_health_check_is_as_good_as_its_worst_answer() -> None:
    result = run(sys.executable, DOCKER / "ready.py", "http://127.0.0.1:9/health")
    assert result.returncode == 1
    assert "http://127.0.0.1:9/health" in result.stderr
