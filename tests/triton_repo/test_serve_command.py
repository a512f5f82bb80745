"""Promise: `trtbuild serve` refuses what has no meaning, and can show what it would start."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_placement import write_divided
from tiny_engine import make_engine

from builder.errors import LaunchError
from triton_repo.layout import write_repository
from trtbuild import endpoint
from trtbuild.commands.serve import serve


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_repository(make_engine(tmp_path / "engine"), tmp_path / "repo")
    return tmp_path / "repo"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(serve, [*map(str, arguments)], catch_exceptions=False)


MEANINGLESS = (
    (("--tls-cert", "{file}", "--tls-key", "{file}"), "--tls-cert has no meaning without --only t"),
    (("--triton-ca", "{file}"), "--triton-ca has no meaning without --only proxy"),
    (("--only", "triton", "--triton-ca", "{file}"), "--triton-ca has no meaning with --only trit"),
    (("--only", "triton", "--engine", "a"), "--engine has no meaning with --only triton"),
    (("--only", "proxy", "--share-gpus"), "--share-gpus has no meaning with --only proxy"),
    (("--only", "proxy", "--restrict-admin"), "--restrict-admin has no meaning with --only proxy"),
    (("--only", "proxy", "--log-verbose", "1"), "--log-verbose has no meaning with --only proxy"),
    (("--only", "proxy", "--dry-run"), "--dry-run has no meaning with --only proxy"),
    (("--probe-timeout", "9"), "--probe-timeout has no meaning without --probe-interval"),
    (("--only", "triton", "--tls-cert", "{file}"), "TLS needs --tls-cert and --tls-key"),
    (("--only", "triton", "--tls-client-ca", "{file}"), "TLS needs --tls-cert and --tls-key"),
    (
        ("--only", "proxy", "--triton", "a:1", "--triton-key", "{file}"),
        "--triton-cert and --triton-key go together",
    ),
)


@pytest.mark.parametrize(("options", "words"), MEANINGLESS)
def test_an_option_that_does_nothing_is_refused(
    options: tuple[str, ...], words: str, repository: Path
) -> None:
    file = repository / "trtbuild.json"
    result = run(repository, *(option.format(file=file) for option in options))
    assert result.exit_code == 2
    assert words in result.stderr


def test_tls_from_the_environment_is_refused_too(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRTBUILD_SERVE_TLS_CERT", "TRTBUILD_SERVE_TLS_KEY"):
        monkeypatch.setenv(name, str(repository / "trtbuild.json"))
    words = [str(repository), "--dry-run"]
    result = CliRunner().invoke(serve, words, auto_envvar_prefix="TRTBUILD_SERVE")
    assert result.exit_code == 2
    assert "--tls-cert has no meaning without --only triton" in result.stderr


def test_a_dry_run_has_the_models_environment_and_no_key(repository: Path) -> None:
    file = repository / "trtbuild.json"
    tls = ("--tls-cert", file, "--tls-key", file)
    result = run(repository, "--only", "triton", "--host", "0.0.0.0", "--dry-run", *tls)
    assert f"TRTBUILD_TRITON_GRPC_CERTIFICATE={file.resolve()}" in shlex.split(result.stdout)
    assert "trtbuild-admin-key=CHOOSE-A-KEY" in result.stdout
    assert "CHOOSE-A-KEY" in result.stderr


def test_a_dry_run_shows_the_command_with_what_was_chosen(repository: Path) -> None:
    options = ("--log-verbose", "2", "--log-format", "ISO8601", "--grpc-port", "9001")
    result = run(repository, "--dry-run", *options)
    assert result.exit_code == 0
    words = shlex.split(result.stdout)
    assert words[:3] == ["cd", str(repository.resolve()), "&&"]
    chosen = {"--log-verbose=2", "--log-format=ISO8601", "--grpc-port=9001"}
    explicit = {"--model-control-mode=explicit", "--load-model=*", "--http-address=127.0.0.1"}
    assert set(words) >= chosen | explicit
    assert not any("restricted" in word for word in words)


def test_beyond_this_machine_the_admin_endpoints_want_a_key_unless_told_otherwise(
    repository: Path,
) -> None:
    beyond = (repository, "--only", "triton", "--host", "0.0.0.0", "--dry-run")
    rule = ":trtbuild-admin-key="
    for flag in ("http-restricted-api", "grpc-restricted-protocol"):
        [word] = [w for w in shlex.split(run(*beyond).stdout) if w.startswith(f"--{flag}=")]
        assert rule in word
        assert word.startswith(f"--{flag}=model-repository,shared-memory,logging,trace:")
    assert rule not in run(*beyond, "--open-admin").stdout
    assert rule in run(repository, "--restrict-admin", "--dry-run").stdout


def test_a_dry_run_of_several_engines_shows_the_orchestrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As data: no GPU, no TensorRT-LLM; mpirun is a file."""
    (tmp_path / "bin").mkdir()
    for program in ("mpirun", "tritonserver"):
        (tmp_path / "bin" / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    words = shlex.split(run(write_divided(tmp_path), "--dry-run").stdout)
    before = words[3 : words.index(str(tmp_path / "bin" / "mpirun"))]
    assert {
        "TRTLLM_ORCHESTRATOR=1",
        "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES=1",
        "TRTBUILD_TRITON_GRPC=127.0.0.1:8001",
    } <= set(before)
    assert "--model-control-mode=explicit" not in words


def test_an_engine_that_is_not_there_is_refused_with_those_that_are(repository: Path) -> None:
    with pytest.raises(LaunchError, match="serves no big; found tiny"):
        endpoint.run(repository, host="127.0.0.1", port=0, engine="big")
