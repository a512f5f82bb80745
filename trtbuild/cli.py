"""`trtbuild`: finds the command's file, reads settings, and turns errors into one line."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from builder.errors import TrtbuildError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMANDS = (
    "plan",
    "convert",
    "quantize",
    "build",
    "migrate",
    "repo",
    "serve",
    "keys",
    "models",
    "up",
    "inspect",
    "check",
    "doctor",
    "eval",
    "recipes",
)
"""Each is the function of its name in the module `trtbuild.commands.NAME`."""


class _Commands(click.Group):
    """Loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the pipeline."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command `name`, or None."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"trtbuild.commands.{name}"), name)
        for option in command.params:
            if isinstance(option, click.Option):
                # as the flag is called, which is not always the parameter's name
                flag = max(option.opts, key=len).lstrip("-").replace("-", "_")
                option.envvar = f"TRTBUILD_{name}_{flag}".upper()
        return command


def _settings(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Lay a TOML file under the commands' options: `[build]` `max_batch_size = 8`."""
    if path is None:
        return
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path} is not a TOML file: {error}") from error
    ctx.default_map = {name: _table(ctx, path, name, table) for name, table in tables.items()}


def _table(ctx: click.Context, path: Path, name: str, table: Any) -> dict[str, Any]:
    """A command's settings under click's names for them; what no command takes is refused."""
    command = trtbuild.get_command(ctx, name)
    if command is None or not isinstance(table, dict):
        raise click.BadParameter(f"{path}: [{name}] is not one of {', '.join(COMMANDS)}")
    names = {
        flag.lstrip("-").replace("-", "_"): param.name or ""
        for param in command.params
        for flag in param.opts
    }
    settings = {}
    for key, value in table.items():
        if (known := key.replace("-", "_")) not in names:
            raise click.BadParameter(f"{path}: {name} has no option {key}")
        settings[names[known]] = value
    return settings


@click.group(
    cls=_Commands,
    context_settings={"auto_envvar_prefix": "TRTBUILD", "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="trtbuild")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_settings,
    help="TOML file with a table of options for each command.",
)
def trtbuild() -> None:
    """A language model in, an OpenAI-compatible endpoint on Triton out.

    Every option can be set by a flag, else by the environment (TRTBUILD_BUILD_MAX_BATCH_SIZE),
    else in the --config file.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exits 0 when done, 1 when it failed, 2 when misused."""
    try:
        return trtbuild.main(arguments, prog_name="trtbuild")
    except TrtbuildError as error:
        click.echo(f"trtbuild: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        place = f"can't use {error.filename}; found " if error.filename else ""
        click.echo(f"trtbuild: {place}{error.strerror or error}", err=True)
        sys.exit(TrtbuildError.exit_code)
