"""Promise: `trtbuild models` shows and changes what a running Triton has loaded, by names."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny_engine import ECHO_BACKEND, make_engine
from waiting import until
from willing import Willing

from builder.errors import LaunchError
from triton_repo.contract import MODELS
from triton_repo.control.access import Access
from triton_repo.control.client import Control, ModelVersion
from triton_repo.launch.triton import LaunchConfig, Triton, default_log
from triton_repo.layout import write_repository
from trtbuild.commands import models as commands
from trtbuild.commands.models import models as command


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models_command")
    write_repository(make_engine(folder / "engine"), folder / "repo")
    return folder / "repo"


@pytest.fixture(scope="module")
def config(repository: Path) -> LaunchConfig:
    return LaunchConfig(
        repository=repository,
        log_path=default_log(repository),
        python_backends={"tensorrtllm": ECHO_BACKEND},
        model_control=True,
        admin_key="sesame",
        grace_s=3,
    )


@pytest.fixture(scope="module")
def running(config: LaunchConfig) -> Iterator[Triton]:
    with Triton(config) as triton:
        yield triton


def models(*arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)


def states(repository: Path) -> dict[str, str]:
    result = models("list", repository, "--json")
    assert result.exit_code == 0
    return {each["name"]: each["state"] for each in json.loads(result.stdout)}


@pytest.mark.triton
def test_a_set_is_unloaded_and_loaded_by_the_engines_name(
    running: Triton, repository: Path
) -> None:
    assert states(repository) == dict.fromkeys(MODELS, "READY")
    assert models("unload", repository, "ensemble").exit_code == 0
    assert states(repository)["ensemble"] == "UNAVAILABLE"
    shown = models("list", repository).stdout
    assert "unavailable  unloaded" in shown
    assert models("unload", repository, "tiny").exit_code == 0
    until(lambda: set(states(repository).values()) == {"UNAVAILABLE"})
    result = models("load", repository)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.count("is loaded") == len(MODELS)
    assert states(repository) == dict.fromkeys(MODELS, "READY")


@pytest.mark.triton
def test_a_swap_and_a_probe_by_command(running: Triton, repository: Path, tmp_path: Path) -> None:
    new = make_engine(tmp_path / "new", max_batch_size=9)
    result = models("swap", repository, new, "--json")
    assert result.exit_code == 0
    done = json.loads(result.stdout)
    assert (done["name"], done["version"], done["drained"]) == ("tiny", 2, True)
    assert "loading tensorrt_llm, version 2" in result.stderr
    result = models("probe", repository, "--json")
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)["probe_ms"]) == {"tensorrt_llm"}


def test_a_model_that_never_leaves_is_no_wait_without_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo")
    control = Willing()
    control.held = (ModelVersion(name="tensorrt_llm", version=1, state="UNLOADING"),)
    monkeypatch.setattr(commands, "_control", lambda *_: control)
    with pytest.raises(LaunchError, match=r"after 0.2 s .*tensorrt_llm 1 \(unloading\).*again"):
        models("unload", tmp_path / "repo", "--drain", 0.2)
    assert models("unload", tmp_path / "repo", "ensemble").exit_code == 0


def test_without_a_triton_the_error_says_so(tmp_path: Path) -> None:
    write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo")
    with pytest.raises(LaunchError, match=r"no Triton to talk to; .*--log"):
        models("list", tmp_path / "repo")
    with pytest.raises(LaunchError, match="no Triton to talk to"):
        models("probe", tmp_path / "repo", "--log", tmp_path / "log")


def test_a_load_that_takes_longer_than_allowed_says_so_and_how_to_allow_more() -> None:
    """A server that takes the request and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = Access(
            pid=os.getpid(),
            http_address=f"127.0.0.1:{silent.getsockname()[1]}",
            grpc_address="127.0.0.1:1",
            admin_key=None,
            model_control=True,
        )
        with pytest.raises(LaunchError, match=r"no answer within 0\.2 s; .*--timeout"):
            Control(there, timeout_s=0.2).load("tensorrt_llm")
