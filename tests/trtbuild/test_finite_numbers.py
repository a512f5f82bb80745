"""Promise: an option of seconds takes no "nan" and no "inf", however it is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from trtbuild.cli import trtbuild


def options(group: click.Group) -> Iterator[click.Option]:
    """Of all commands below it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from options(command)
        yield from (param for param in command.params if isinstance(param, click.Option))


def test_no_option_of_seconds_or_of_a_part_takes_what_is_no_number() -> None:
    asked = set()
    for option in options(trtbuild):
        if isinstance(option.type, click.FloatRange) or (option.help or "").startswith("Seconds "):
            asked.add(option.opts[0])
            for value in ("nan", "inf", "-inf"):
                with pytest.raises(click.BadParameter):
                    option.type.convert(value, option, None)
    assert asked >= {"--drain-notice", "--response-store-age", "--start-timeout", "--kv-fraction"}
    assert asked >= {"--timeout", "--drain"}, "of trtbuild models"


def test_nor_does_it_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[serve]\nheader-timeout = nan\n")
    of_file = CliRunner().invoke(trtbuild, ["--config", str(settings), "serve", str(tmp_path)])
    monkeypatch.setenv("TRTBUILD_SERVE_DRAIN_NOTICE", "inf")
    of_variable = CliRunner().invoke(trtbuild, ["serve", str(tmp_path)])
    for result, flag in ((of_file, "--header-timeout"), (of_variable, "--drain-notice")):
        assert result.exit_code == 2
        assert flag in result.output
        assert "finite number" in result.output
