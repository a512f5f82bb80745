"""Promise: each option of the proxy reaches what it is for, by flag and by environment."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from server.auth.key import digest
from server.config import MAX_WORKERS, ServedModel, ServerConfig
from server.errors import OutputError, UnusableKeysError
from server.text.parser import REASONING_PARSERS, TOOL_PARSERS
from trtbuild import cli, server_options
from trtbuild.server_options import TABLE, ServerOptions


def gathered(*arguments: str, **environment: str) -> ServerOptions:
    """What a command with the options is given."""
    given: list[ServerOptions] = []

    @click.command()
    @server_options.server
    def command(server: ServerOptions) -> None:
        given.append(server)

    result = CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return given[0]


@click.command()
@server_options.server
def bare(server: ServerOptions) -> None:
    """A command that does nothing."""


def test_every_option_is_a_field_of_the_proxys_config_or_its_models() -> None:
    known = {True: fields(ServedModel), False: fields(ServerConfig)}
    for row in TABLE:
        assert row.field in {field.name for field in known[row.of_model]}, row.flag


def test_every_setting_of_the_proxy_has_an_option_or_a_reason_to_have_none() -> None:
    options = {row.field for row in TABLE if not row.of_model}
    assert {field.name for field in fields(ServerConfig)} == options | {
        "triton_addresses",  # --triton, of serve alone
        "triton_tls",  # its --triton-ca, --triton-cert and --triton-key
        "models",  # the repository's
        "host",  # --host and --port, which Triton alone has too
        "port",
        "api_keys",  # they have a variable, as secrets don't belong into a command line
        "shared_dir",  # each worker is told by the supervisor
        "worker",
        "began",  # and drawn anew at each start
        "secret",
    }


def test_help_tells_the_defaults_as_they_are() -> None:
    shown = {True: "open", "model": "model", None: None, (): None, "auto": None, False: None}
    units = {"KiB": 1024, "MiB": 1024**2, "days": 24 * 3600}
    for row in TABLE:
        default = getattr(ServedModel if row.of_model else ServerConfig, row.field)
        told = re.search(r"\[default: ([^\]]+)\]", row.help)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert told, row.flag
            number, _, unit = told[1].partition(" ")
            assert int(number) * units.get(unit, 1) == default, row.flag
        else:
            assert (told[1] if told else None) == shown[default], row.flag
    assert TABLE[0].type.max == MAX_WORKERS


def test_what_isnt_given_is_left_to_the_proxys_own_defaults() -> None:
    assert gathered() == ServerOptions()
    ServerConfig(triton_addresses=("a:1",), models=(), **gathered().config)


def test_flags_become_fields(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").touch()
    chosen = gathered(
        *("--workers", "3", "--api-keys", str(tmp_path / "keys.toml"), "--closed-metrics"),
        *("--cors-origin", "https://a", "--cors-origin", "https://b"),
        *("--tool-parser", "hermes", "--default-sampling", "openai"),
        *("--alias", "gpt=llama", "--alias", "x=y=z", "--access-log", "-"),
    )
    config: dict[str, Any] = dict(chosen.config)
    assert config == {
        "workers": 3,
        "api_keys_file": tmp_path / "keys.toml",
        "open_metrics": False,
        "cors_origins": ("https://a", "https://b"),
        "access_log": Path("-"),
    }
    assert chosen.model == {"tool_parser": "hermes", "default_sampling": "openai"}
    assert chosen.aliases == {"gpt": "llama", "x": "y=z"}


def test_keys_of_the_environment_are_kept_as_digests() -> None:
    chosen = gathered(TRTBUILD_API_KEYS="bob=sk-1")
    [key] = chosen.config["api_keys"]
    assert (key.name, key.sha256) == ("bob", digest("sk-1"))
    assert "sk-1" not in repr(chosen)


@pytest.mark.parametrize(("command", "workers"), [("serve", "workers"), ("up", "proxy_workers")])
def test_both_commands_have_them_with_a_variable_each(
    command: str, workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cli.trtbuild.get_command(click.Context(cli.trtbuild), command)
    assert found is not None
    variables = {option.envvar for option in found.params if isinstance(option, click.Option)}
    for name in (workers, *(row.parameter for row in TABLE[1:])):
        assert f"TRTBUILD_{command}_{name}".upper() in variables
    monkeypatch.setenv(f"TRTBUILD_{command}_{workers}".upper(), "no number")
    result = CliRunner().invoke(cli.trtbuild, [command, str(tmp_path)])
    assert result.exit_code == 2
    assert f"--{workers.replace('_', '-')}" in result.output


def test_an_alias_names_something() -> None:
    for wrong in ("gpt", "=llama", "gpt="):
        result = CliRunner().invoke(bare, ["--alias", wrong])
        assert (result.exit_code, "NAME=MODEL" in result.output) == (2, True)


def test_a_variable_of_keys_that_is_set_and_empty_opens_nothing() -> None:
    with pytest.raises(UnusableKeysError):
        gathered(TRTBUILD_API_KEYS="")


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        (("--max-held-bytes", 1), False),
        (("--max-body-bytes", ServerConfig.max_held_bytes + 1), False),
        (("--max-held-bytes", 9, "--max-body-bytes", 10), False),
        (("--max-held-bytes", 10, "--max-body-bytes", 10), True),
    ],
)
def test_bodies_that_would_never_be_taken_are_refused_at_the_start(
    asked: tuple[str | int, ...], fits: bool
) -> None:
    result = CliRunner().invoke(bare, [str(word) for word in asked])
    assert (result.exit_code, "--max-held-bytes" in result.output) == (0 if fits else 2, not fits)


@pytest.mark.parametrize(
    "asked",
    [
        ("--record-content",),
        ("--record-max-bytes", "5"),
        ("--record", "missing/file"),
        ("--record", "."),
    ],
)
def test_a_recording_that_can_t_be_is_refused_before_anything_starts(
    asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(bare, asked)
    assert (result.exit_code, "--record" in result.output) == (2, True)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputError, match="notes is no recording"):
        gathered("--record", "notes")
    assert gathered("--record", "file", "--record-content").config == {
        "record": Path("file"),
        "record_content": True,
    }


@pytest.mark.parametrize(
    ("flag", "names"),
    [("--tool-parser", TOOL_PARSERS), ("--reasoning-parser", REASONING_PARSERS)],
)
def test_help_names_the_parsers_and_no_other_is_taken(flag: str, names: tuple[str, ...]) -> None:
    [row] = (row for row in TABLE if row.flag == flag)
    assert row.help.endswith(f" One of {', '.join(names)}.")
    assert CliRunner().invoke(bare, [flag, names[-1]]).exit_code == 0
    assert CliRunner().invoke(bare, [flag, "nonsense"]).exit_code == 2
