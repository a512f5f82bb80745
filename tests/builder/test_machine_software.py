"""Promise: TensorRT-LLM is found without being loaded, and a container engine only if it answers.

TensorRT-LLM, docker and podman are stand-ins; the docker client without a daemon is a real one
where there is one.
"""

from __future__ import annotations

import json
import shutil
import sys
import venv
from pathlib import Path

import pytest
from nvidia_smi import program

from builder import machine
from builder.machine import software
from builder.machine.software import container, tensorrt_llm

NOT_LOADED = "raise AssertionError('tensorrt_llm was imported')\n"


def install(site: Path, version: str = "1.2.1", *, compiler: bool = True) -> None:
    """A package laid out as TensorRT-LLM's is, which fails when imported."""
    package = site / "tensorrt_llm"
    for name in ("commands", "llmapi"):
        (package / name).mkdir(parents=True)
    for name in ("__init__.py", "commands/__init__.py", "llmapi/__init__.py", "llmapi/llm.py"):
        (package / name).write_text(NOT_LOADED)
    (package / "version.py").write_text(f'# the version\n__version__ = "{version}"\n')
    if compiler:
        (package / "commands" / "build.py").write_text(NOT_LOADED)
    for name, found in (("tensorrt_llm", version), ("tensorrt", "10.14.1.48")):
        info = site / f"{name}-{found}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {found}\n")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(software, "_CDI_FOLDERS", (tmp_path / "cdi",))
    return folder


def test_without_tensorrt_llm_there_is_none(path: Path) -> None:
    assert tensorrt_llm() is None
    assert machine.tensorrt_llm() is None


def test_it_is_described_without_being_imported(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CUDA_VERSION", "13.1.0.036")
    program(path / "trtllm-build", f"#!{sys.executable}\n{NOT_LOADED}")
    found = tensorrt_llm()
    assert found
    assert (found.version, found.tensorrt, found.cuda) == ("1.2.1", "10.14.1.48", "13.1.0.036")
    assert (found.has_build, found.has_llmapi, found.python) == (True, True, None)
    assert "tensorrt_llm" not in sys.modules


@pytest.mark.parametrize("part", ["script", "module"])
def test_the_compiler_is_there_only_with_both_its_script_and_its_module(
    part: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "1.3.0rc23", compiler=part != "module")
    monkeypatch.syspath_prepend(tmp_path)
    if part == "module":
        program(path / "trtllm-build", f"#!{sys.executable}\n")
    found = tensorrt_llm()
    assert found
    assert not found.has_build
    assert found.has_llmapi


def test_the_tensorrt_llm_of_another_python_is_found_through_its_script(
    path: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "other", symlinks=True, with_pip=False)
    python = tmp_path / "other" / "bin" / "python"
    [site] = (tmp_path / "other" / "lib").glob("python*/site-packages")
    install(site, "1.1.0")
    program(path / "trtllm-build", f"#!{python}\n{NOT_LOADED}")
    found = tensorrt_llm()
    assert found
    assert (found.version, found.has_build, found.python) == ("1.1.0", True, str(python))


def test_a_folder_of_that_name_is_no_installation(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt_llm" / "1").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert tensorrt_llm() is None


def answers(path: Path, name: str, info: dict[str, object] | str, code: int = 0) -> None:
    """A stand-in for docker or podman that answers `info --format {{json .}}` and no more."""
    text = info if isinstance(info, str) else json.dumps(info)
    stream = "stdout" if code == 0 else "stderr"
    program(
        path / name,
        f"#!{sys.executable} -IS\nimport sys\n"
        "assert sys.argv[1:] == ['info', '--format', '{{json .}}'], sys.argv\n"
        f"print({text!r}, file=sys.{stream})\nsys.exit({code})\n",
    )


RUNTIMES = {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}}


def test_a_docker_with_nvidias_runtime_hands_out_gpus(path: Path) -> None:
    answers(path, "docker", {"ServerVersion": "28.2.2", "Runtimes": RUNTIMES})
    found = container()
    assert found
    assert (found.name, found.version, found.nvidia) == ("docker", "28.2.2", True)
    assert machine.container_engine() == str(path / "docker")


def test_a_docker_that_knows_the_gpus_by_cdi_hands_them_out(path: Path) -> None:
    devices = [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]
    answers(path, "docker", {"ServerVersion": "28.3.0", "DiscoveredDevices": devices})
    assert container() == software.ContainerEngine(
        name="docker", path=str(path / "docker"), version="28.3.0", nvidia=True
    )


def test_a_docker_without_nvidias_toolkit_hands_out_none(path: Path) -> None:
    answers(path, "docker", {"ServerVersion": "28.2.2", "Runtimes": {"runc": {}}})
    assert container() == software.ContainerEngine(
        name="docker", path=str(path / "docker"), version="28.2.2", nvidia=False
    )


def test_podman_hands_out_gpus_that_nvidias_toolkit_has_described(
    path: Path, tmp_path: Path
) -> None:
    answers(path, "podman", {"host": {"arch": "amd64"}, "version": {"Version": "5.4.2"}})
    before = container()
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "nvidia.yaml").touch()
    after = container()
    assert before
    assert after
    assert (before.name, before.version, before.nvidia) == ("podman", "5.4.2", False)
    assert after.nvidia


def test_podman_answers_for_a_docker_that_doesnt(path: Path) -> None:
    answers(path, "docker", "Cannot connect to the Docker daemon at unix:///x.", code=1)
    answers(path, "podman", {"host": {}, "version": {"Version": "5.4.2"}})
    assert machine.container_engine() == str(path / "podman")


@pytest.mark.parametrize(
    ("said", "do"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "usermod"),
        ("Cannot connect to the Docker daemon. Is the docker daemon running?", "systemctl start"),
    ],
)
def test_a_docker_that_doesnt_answer_is_told_with_its_remedy(
    said: str, do: str, path: Path
) -> None:
    answers(path, "docker", said, code=1)
    found = container()
    assert found
    assert found.problem == said
    assert do in str(found.do)
    assert machine.container_engine() is None


def test_without_an_engine_there_is_none(path: Path) -> None:
    assert container() is None
    assert machine.container_engine() is None


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs a docker client")
def test_a_real_docker_client_without_its_daemon_is_no_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = shutil.which("docker")
    assert client
    (tmp_path / "docker").symlink_to(client)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    found = container()
    assert found
    assert "none.sock" in str(found.problem)
    assert machine.container_engine() is None
